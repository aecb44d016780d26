"""The `m` of step-by-step samplers: arrays in Python over native network runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from math import erfc, sqrt
from typing import Any

import numpy as np

from . import _core
from .denoiser import Denoiser
from .errors import (
    DeadlineExceededError,
    GenerationCancelled,
    InvalidRequestError,
    NumericalError,
)
from .noise_streams import Stream, draw
from .samplers import Schedule
from .tracing.prediction import coefficients

__all__ = ["NativeModel"]


class NativeModel:
    """What `samplers.stepwise` describes, on NumPy arrays.

    Args:
        denoiser: The network.
        schedule: Says what the network is told at a noise level.
        noise: The stream that `noise` and `uniform` draw from; None for samplers that do not.
        run: Arguments of every network run, as the core takes them: cond, uncond, guidance, cancel.
        timeout: Seconds from now after which the sampler ends.
        progress: Counts steps; their total is not known.
        on_step: As of `sample`, but latents cannot be replaced.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        schedule: Schedule,
        noise: Stream | None,
        run: Mapping[str, Any],
        timeout: float | None,
        progress: _core.Progress | None,
        on_step: Callable[[int, np.ndarray, np.ndarray | None], Any] | None,
        wants_denoised: bool,
    ) -> None:
        self._denoiser = denoiser
        self._schedule = schedule
        self._noise = noise
        self._run = dict(run)
        self._end = None if timeout is None else time.monotonic() + timeout
        self._progress = progress
        self._on_step = on_step
        self._wants_denoised = wants_denoised
        self._shape: tuple[int, ...] = ()
        self._coefficients = coefficients(denoiser.prediction)
        self.step_count = 0
        if progress is not None:
            progress.begin(0)

    def start(self, x: np.ndarray) -> np.ndarray:
        """The initial latent, float32 [B, ...], whose shape the noise has, too."""
        self._shape = x.shape
        return x

    def denoise(self, x: np.ndarray, sigma: float) -> np.ndarray:
        """The estimate of the clean latent at x, by one network run.

        Raises:
            GenerationCancelled, DeadlineExceededError: As asked for.
            NumericalError: NaN or infinity appeared.
        """
        scale_in, c_skip, c_out = self._coefficients(sigma)
        level = self._schedule.noise_level(sigma)
        table = [
            ("denoise", 0, 0, scale_in, level),
            ("combine", 0, [("x", 0, c_skip), ("e", 0, c_out)], 0.0),
        ]
        program = _core.Program(table, latents=1, outputs=1, result=0)
        try:
            denoised: np.ndarray = _core.sample(
                self._denoiser._native,
                program,
                np.ascontiguousarray(x, np.float32),
                timeout=self._remaining(),
                **self._run,
            )
            return denoised
        except GenerationCancelled:
            raise self._cancelled() from None
        except NumericalError:
            raise NumericalError(
                f"denoising: NaN or infinity in the latents at step {self.step_count}; the graph, "
                "the conditioning or the start is not finite, or the step size is too large",
                stage="denoising",
                step=self.step_count,
            ) from None

    def score(self, x: np.ndarray, sigma: float) -> np.ndarray:
        """The gradient of log p(x; sigma)."""
        score: np.ndarray = (self.denoise(x, sigma) - x) / (sigma * sigma)
        return score

    def noise(self, sigma: float | None = None, sigma_next: float | None = None) -> np.ndarray:
        """Fresh unit normal latents; the levels are those of a Brownian path."""
        if sigma is None or sigma_next is None:
            return draw(self._stream(), self._shape)
        return draw(self._stream(), self._shape, (sigma, sigma_next))

    def uniform(self) -> np.ndarray:
        """float64 [B]: a number in 0..1 for each image."""
        normal = self.noise().reshape(self._shape[0], -1)[:, 0]
        return np.fromiter((erfc(-z / sqrt(2)) / 2 for z in normal.tolist()), np.float64)

    def keep(self, x: np.ndarray) -> np.ndarray:
        """x itself; samplers that are traced need it."""
        return x

    def step(
        self,
        x: np.ndarray,
        denoised: np.ndarray | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        """Ends a step.

        Raises:
            GenerationCancelled, DeadlineExceededError: As asked for.
            InvalidRequestError: `on_step` returned latents.
        """
        if self._on_step is not None:
            shown = denoised.copy() if self._wants_denoised and denoised is not None else None
            if self._on_step(self.step_count, x.copy(), shown) is not None:
                raise InvalidRequestError(
                    "on_step: returned latents, allowed is None with a step-by-step sampler.",
                    param="on_step",
                )
        self.step_count += 1
        if self._progress is not None:
            self._progress.advance()
        cancel = self._run.get("cancel")
        if cancel is not None and cancel.cancelled:
            raise self._cancelled()
        self._remaining()

    def _remaining(self) -> float | None:
        if self._end is None:
            return None
        seconds = self._end - time.monotonic()
        if seconds > 0.0:
            return seconds
        raise DeadlineExceededError(
            f"denoising: the deadline passed after {self.step_count} steps",
            stage="denoising",
            steps_done=self.step_count,
        )

    def _cancelled(self) -> GenerationCancelled:
        return GenerationCancelled(
            f"denoising: cancelled after {self.step_count} steps",
            stage="denoising",
            steps_done=self.step_count,
        )

    def _stream(self) -> Stream:
        if self._noise is None:
            raise InvalidRequestError(
                "noise: this sampler draws noise, and no noise stream was given", param="noise"
            )
        return self._noise
