"""Results in the form that diffusers' callers unpack."""

from __future__ import annotations

from typing import Any

__all__ = ["NamedResult", "StableDiffusionPipelineOutput"]


class NamedResult(dict):
    """Items by name, by position and as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return dict.__getitem__(self, name)
        except KeyError:
            raise AttributeError(f"the result has no {name!r}, but {', '.join(self)}") from None

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def to_tuple(self) -> tuple[Any, ...]:
        """The values in order."""
        return tuple(self.values())


class StableDiffusionPipelineOutput(NamedResult):
    """What a pipeline returns.

    Attributes:
        images: A list of PIL images, or an array in the asked form.
        nsfw_content_detected: None: no safety checker ran. As in diffusers it is then no item.
    """

    nsfw_content_detected: None = None

    def __init__(self, images: Any) -> None:
        super().__init__(images=images)

    def __reduce__(self) -> tuple[Any, ...]:
        return (StableDiffusionPipelineOutput, (self["images"],))
