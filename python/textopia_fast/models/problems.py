"""Collects what is wrong with a model directory, so that one error can report all of it."""

from __future__ import annotations

from pathlib import Path

from ..checks import shown
from ..errors import (
    ModelError,
    ModelFormatError,
    ModelIntegrityError,
    ModelNotFoundError,
    UnsafeModelError,
    UnsupportedModelError,
)
from .limits import MAX_PROBLEMS

__all__ = ["EXPORT_AGAIN", "INCOMPLETE", "TRUNCATED", "Problems", "text_of"]

EXPORT_AGAIN = "Export or download the model again."
TRUNCATED = "The file looks truncated: export or download the model again."
INCOMPLETE = "Check that the export is complete."

# The gravest kind names the error: a model that is unsafe stays unsafe when its files are mended.
_GRAVITY: tuple[type[ModelError], ...] = (
    UnsafeModelError,
    UnsupportedModelError,
    ModelFormatError,
    ModelIntegrityError,
    ModelNotFoundError,
    ModelError,
)

_HINTS: dict[type[ModelError], str] = {
    UnsafeModelError: "Do not use this model unless you know who made it.",
    UnsupportedModelError: "",
    ModelFormatError: EXPORT_AGAIN,
    ModelIntegrityError: EXPORT_AGAIN,
    ModelNotFoundError: "Check the path and that the export is complete.",
    ModelError: "",
}


def text_of(value: str | bytes) -> str:
    """A string of a graph. protobuf hands out bytes for one that is not UTF-8; that raises here."""
    return value if isinstance(value, str) else value.decode("utf-8")


class Problems:
    """Errors found in one directory. `add` keeps one, `raise_if_any` reports them together."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._found: list[ModelError] = []
        self._more = 0

    def add(self, error: ModelError) -> None:
        """Notes one error; those above the limit are only counted."""
        if len(self._found) < MAX_PROBLEMS:
            self._found.append(error)
        else:
            self._more += 1

    def __len__(self) -> int:
        return len(self._found) + self._more

    def raise_if_any(self) -> None:
        """Raises the only error as it is, or one that lists them all in `details["problems"]`."""
        if not self._found:
            return
        if len(self._found) == 1:
            raise self._found[0]
        kind = next(k for k in _GRAVITY if any(isinstance(e, k) for e in self._found))
        gravest = next(e for e in self._found if isinstance(e, kind))
        texts = [e.message for e in self._found]
        listed = "; ".join(f"({i}) {text.rstrip('.')}" for i, text in enumerate(texts, 1))
        more = f"; and {self._more} more" if self._more else ""
        raise kind(
            f"{shown(self._root)}: {len(self)} problems: {listed}{more}.",
            hint=gravest.hint or _HINTS[kind] or None,
            **(gravest.details | {"problems": texts}),
        )
