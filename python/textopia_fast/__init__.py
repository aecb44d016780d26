"""textopia_fast: samples from Stable-Diffusion-type models with a native denoising loop.

Text to image on the bundled model:

    import textopia_fast as tx

    pipe = tx.Pipeline.from_pretrained("tiny-shapes")
    out = pipe("a red circle on a blue background", num_inference_steps=20, seed=7)
    out.images[0].save("circle.png")
"""

from typing import TYPE_CHECKING, Any

from . import errors, samplers
from ._core import CancelToken, DeviceArray, Progress, __version__
from .denoiser import Denoiser
from .errors import *  # noqa: F403 - the error tree is part of the public names
from .noise import Noise
from .output import Output
from .pipeline import Pipeline
from .samplers import Program, Schedule, schedules, trace
from .samplers import langevin_program as langevin
from .sampling import sample

if TYPE_CHECKING:
    from .interop.pipelines import (
        LatentConsistencyModelPipeline,
        StableDiffusionImg2ImgPipeline,
        StableDiffusionInpaintPipeline,
        StableDiffusionPipeline,
    )

__all__ = [
    "CancelToken",
    "Denoiser",
    "DeviceArray",
    "LatentConsistencyModelPipeline",
    "Noise",
    "Output",
    "Pipeline",
    "Program",
    "Progress",
    "Schedule",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionPipeline",
    "__version__",
    "langevin",
    "sample",
    "samplers",
    "schedules",
    "trace",
    *errors.__all__,
]

_DROP_IN = (
    "LatentConsistencyModelPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionPipeline",
)


def __getattr__(name: str) -> Any:
    if name in _DROP_IN:  # only programs of diffusers need them
        from .interop import pipelines

        return getattr(pipelines, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
