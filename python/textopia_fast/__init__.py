"""textopia_fast: samples from Stable-Diffusion-type models with a native denoising loop.

Text to image on the bundled model:

    import textopia_fast as tx

    pipe = tx.Pipeline.from_pretrained("tiny-shapes")
    out = pipe("a red circle on a blue background", num_inference_steps=20, seed=7)
    out.images[0].save("circle.png")
"""

from . import errors, samplers
from ._core import CancelToken, Progress, __version__
from .denoiser import Denoiser
from .errors import *  # noqa: F403 - the error tree is part of the public names
from .noise import Noise
from .pipeline import Output, Pipeline
from .samplers import Program, Schedule, schedules, trace
from .samplers import langevin_program as langevin
from .sampling import sample

__all__ = [
    "CancelToken",
    "Denoiser",
    "Noise",
    "Output",
    "Pipeline",
    "Program",
    "Progress",
    "Schedule",
    "__version__",
    "langevin",
    "sample",
    "samplers",
    "schedules",
    "trace",
    *errors.__all__,
]
