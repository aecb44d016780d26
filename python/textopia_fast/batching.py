"""Which images of a batch may share a run of the network without a change in any bit of them.

Sharing is faster for small latents, whose matrices are too small to keep a CPU busy. Whether it
changes rounding depends on the shapes alone, not on the numbers in them: a kernel adds up in an
order that follows from its sizes. So one comparison on random latents, bit by bit, settles it for
all requests of a shape.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from . import _core
from .arrays import Array
from .checks import refuse
from .denoiser import Denoiser
from .engines import DenoiserMaker, RunShapes
from .samplers import Program, Schedule, trace
from .sampling import sample

__all__ = ["AUTO", "SHARED_IMAGES", "Batching"]

AUTO = "auto"
SHARED_IMAGES = 8
"""Images of one shared run: more gain little and cost memory."""
SHARED_LATENT = 32 * 32
"""Height times width of latents up to which sharing is tried: larger ones keep a CPU busy alone."""


class Batching:
    """Chooses the denoiser of a request.

    Args:
        make: Makes it for a number of images per run (None: the whole batch), for a GPU by the
            shapes of a run.
        images_per_run: That number, or "auto": shared runs where they are proven to change nothing,
            else one image a run.
        gpu: Where the denoisers run; None for the CPU.
        sample: Name of the network's input for the latents.
        usual: The first denoiser is opened at once, for these shapes.
    """

    def __init__(
        self,
        make: DenoiserMaker,
        images_per_run: int | str | None,
        gpu: _core.Gpu | None = None,
        sample: str = "sample",
        usual: RunShapes | None = None,
    ) -> None:
        self._is_auto = isinstance(images_per_run, str)
        if self._is_auto and images_per_run != AUTO:
            refuse("images_per_run", images_per_run, f"are {AUTO!r}, a number and None")
        self._images = 1 if isinstance(images_per_run, str) else images_per_run
        self._alone = make(self._images)
        self._shared = make(SHARED_IMAGES) if self._is_auto else self._alone
        self._sample = sample
        self._last = self._alone(usual)
        self._is_exact: dict[tuple[object, ...], bool] = {}
        self.gpu = gpu

    @property
    def cuda_graphs(self) -> str:
        """Of the last request's runs: "on", "off", or "off: " and why."""
        return self._last.session.cuda_graphs

    def denoiser(
        self,
        shape: tuple[int, ...],
        cond: Mapping[str, Array],
        uncond: Mapping[str, Array] | None,
        cancel: _core.CancelToken | None = None,
        *,
        is_mixed: bool = False,
    ) -> Denoiser:
        """The denoiser for latents of `shape` [B, C, H, W] and that conditioning.

        The first request of a shape pays for two network evaluations more.

        Args:
            shape, cond, uncond, cancel: As `sample` takes them.
            is_mixed: Some runs may leave the negative half out, others not, so that they have more
                than one size.
        """

        def open_for(is_shared: bool) -> Denoiser:
            images = SHARED_IMAGES if is_shared else self._images
            shapes = None if is_mixed else self._run_shapes(images, shape, cond, uncond)
            return (self._shared if is_shared else self._alone)(shapes)

        is_shared = False
        if self._is_auto and shape[0] > 1 and shape[2] * shape[3] <= SHARED_LATENT:
            key = (shape, uncond is None, is_mixed, *(value.shape for value in cond.values()))
            if key not in self._is_exact:
                denoisers = (open_for(False), open_for(True))
                self._is_exact[key] = _agree(denoisers, shape, cond, uncond, cancel)
            is_shared = self._is_exact[key]
        self._last = open_for(is_shared)
        return self._last

    def _run_shapes(
        self,
        images: int | None,
        shape: tuple[int, ...],
        cond: Mapping[str, Array],
        uncond: Mapping[str, Array] | None,
    ) -> RunShapes | None:
        """What all runs of a request read on a GPU; None where runs differ, and on the CPU."""
        per_run = min(images or shape[0], shape[0])
        if self.gpu is None or shape[0] % per_run != 0:
            return None
        rows = per_run * (1 if uncond is None else 2)
        inputs = {self._sample: shape, **{name: value.shape for name, value in cond.items()}}
        return tuple((name, (rows, *size[1:])) for name, size in inputs.items())


def _agree(
    denoisers: tuple[Denoiser, Denoiser],
    shape: tuple[int, ...],
    cond: Mapping[str, Array],
    uncond: Mapping[str, Array] | None,
    cancel: _core.CancelToken | None,
) -> bool:
    x = np.random.default_rng(0).standard_normal(shape, np.float32)
    program = _few_runs(denoisers[0])
    guidance = 1.0 if uncond is None else 2.0
    alone, shared = (
        sample(denoiser, x, program, cond, uncond, guidance, cancel=cancel)
        for denoiser in denoisers
    )
    return bool(np.array_equal(alone, shared))


def _few_runs(denoiser: Denoiser) -> Program:
    """A program in which every network runs, at a timestep in the middle."""
    runs = 3 if denoiser.has_ends else 1
    sigmas = (1.0, *(0.5 + 0.1 * (runs - i) for i in range(1, runs + 1)))
    return trace("euler", Schedule(sigmas, (500.0,) * runs, 1.0), denoiser.prediction)
