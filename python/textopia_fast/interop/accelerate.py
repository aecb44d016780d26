"""The native loop for a pipeline that optimum-onnx has opened."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ..batching import AUTO
from ..errors import UnsupportedModelError, UnsupportedParameterError
from ..pipeline import Pipeline
from . import pipelines
from .drop_in import DropInPipeline

__all__ = ["accelerate"]

_CPU = "CPUExecutionProvider"
_PARTS = ("unet", "text_encoder", "vae_decoder", "vae_encoder")
_OUTPUTS = "diffusers.pipelines.stable_diffusion.pipeline_output"


def accelerate(
    pipe: Any, *, threads: int | None = None, images_per_run: int | str | None = AUTO
) -> Any:
    """A pipeline that is called like `pipe` and returns what it returns, with the native loop.

    The graphs are opened once more, from the directory that `pipe` opened them from. `pipe` itself
    is not changed; whatever the result does not have itself, it takes from there.

    Args:
        pipe: An `ORTStableDiffusionPipeline` of optimum-onnx, or one of its kinds for image to
            image, inpainting and latent consistency models. Its scheduler is taken along.
        threads, images_per_run: As of `textopia_fast.Pipeline.from_pretrained`.

    Raises:
        UnsupportedModelError: A pipeline of another kind, or graphs that lie in no one directory.
        UnsupportedParameterError: It runs on another provider than the CPU's, or with a safety
            checker.
        ModelError: As of `textopia_fast.Pipeline.from_pretrained`.
    """
    kind = _kind_of(pipe)
    if getattr(pipe, "safety_checker", None) is not None:
        raise UnsupportedParameterError(
            "safety_checker: this pipeline has one, allowed is None.",
            hint="Set pipe.safety_checker = None, or keep the slower pipeline.",
            param="safety_checker",
        )
    opened = Pipeline.from_pretrained(
        _directory_of(pipe), threads=threads, images_per_run=images_per_run
    )
    mixed: Any = type(f"Accelerated{kind.__name__}", (_Accelerated, kind), {})
    made = mixed._over(opened)
    made.scheduler = pipe.scheduler
    made._original = pipe
    return made


class _Accelerated:
    """Mixed into a drop-in pipeline; the rest is what it was made from."""

    _original: Any = None

    def _result(self, images: Any) -> Any:
        module = sys.modules.get(_OUTPUTS)
        if module is None:
            return pipelines.StableDiffusionPipelineOutput(images)
        return module.StableDiffusionPipelineOutput(images=images, nsfw_content_detected=None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


def _kind_of(pipe: Any) -> type[DropInPipeline]:
    for base in type(pipe).__mro__:
        name = base.__name__.removeprefix("ORT")
        if name.endswith("Pipeline") and name in pipelines.__all__:
            kind: type[DropInPipeline] = getattr(pipelines, name)
            return kind
    known = ", ".join(f"ORT{name}" for name in pipelines.__all__ if name.endswith("Pipeline"))
    raise UnsupportedModelError(f"accelerate: {type(pipe).__name__}, supported are {known}.")


def _directory_of(pipe: Any) -> Path:
    roots = set()
    for name in _PARTS:
        part = getattr(pipe, name, None)
        if part is None:
            continue
        session = getattr(part, "session", None)
        providers = [_CPU] if session is None else session.get_providers()
        if providers[:1] != [_CPU]:
            raise UnsupportedParameterError(
                f"provider: {name} runs on {providers[0]}, allowed in this version is {_CPU}.",
                param="provider",
            )
        path = getattr(part, "path", None)
        roots.add(None if path is None else Path(path).resolve().parent.parent)
    if len(roots) != 1 or None in roots:
        raise UnsupportedModelError(
            "accelerate: the graphs of this pipeline lie in no one directory.",
            hint="pipe.save_pretrained(path), then Pipeline.from_pretrained(path).",
        )
    (root,) = roots
    return Path(str(root))
