"""Which images of a batch may share a run of the network without a change in any bit of them.

Sharing is faster for small latents, whose matrices are too small to keep a CPU busy. Whether it
changes rounding depends on the shapes alone, not on the numbers in them: a kernel adds up in an
order that follows from its sizes. So one comparison on random latents, bit by bit, settles it for
all requests of a shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from . import _core
from .arrays import Array
from .checks import refuse
from .denoiser import Denoiser
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
        make: Makes the denoiser for a number of images per run (None: the whole batch).
        images_per_run: That number, or "auto": shared runs where they are proven to change nothing,
            else one image a run.
    """

    def __init__(
        self, make: Callable[[int | None], Denoiser], images_per_run: int | str | None
    ) -> None:
        self._is_auto = isinstance(images_per_run, str)
        if self._is_auto and images_per_run != AUTO:
            refuse("images_per_run", images_per_run, f"are {AUTO!r}, a number and None")
        self._alone = make(1 if isinstance(images_per_run, str) else images_per_run)
        self._shared = make(SHARED_IMAGES) if self._is_auto else self._alone
        self._is_exact: dict[tuple[object, ...], bool] = {}

    @property
    def gpu(self) -> _core.Gpu | None:
        """Where the denoisers run; None for the CPU."""
        return self._alone.gpu

    def denoiser(
        self,
        shape: tuple[int, ...],
        cond: Mapping[str, Array],
        uncond: Mapping[str, Array] | None,
        cancel: _core.CancelToken | None = None,
    ) -> Denoiser:
        """The denoiser for latents of `shape` [B, C, H, W] and that conditioning.

        The first request of a shape pays for two network evaluations more.
        """
        if not self._is_auto or shape[0] == 1 or shape[2] * shape[3] > SHARED_LATENT:
            return self._alone
        key = (shape, uncond is None, *(value.shape for value in cond.values()))
        if key not in self._is_exact:
            self._is_exact[key] = self._compare(shape, cond, uncond, cancel)
        return self._shared if self._is_exact[key] else self._alone

    def _compare(
        self,
        shape: tuple[int, ...],
        cond: Mapping[str, Array],
        uncond: Mapping[str, Array] | None,
        cancel: _core.CancelToken | None,
    ) -> bool:
        x = np.random.default_rng(0).standard_normal(shape, np.float32)
        program = _few_runs(self._alone)
        guidance = 1.0 if uncond is None else 2.0
        alone, shared = (
            sample(denoiser, x, program, cond, uncond, guidance, cancel=cancel)
            for denoiser in (self._alone, self._shared)
        )
        return bool(np.array_equal(alone, shared))


def _few_runs(denoiser: Denoiser) -> Program:
    """A program in which every network runs, at a timestep in the middle."""
    runs = 3 if denoiser.has_ends else 1
    sigmas = (1.0, *(0.5 + 0.1 * (runs - i) for i in range(1, runs + 1)))
    return trace("euler", Schedule(sigmas, (500.0,) * runs, 1.0), denoiser.prediction)
