"""Training tables: the noise levels a network was trained on, from the betas of its config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import cos, isfinite, pi

import numpy as np

from ..errors import InvalidRequestError

__all__ = ["BETA_SCHEDULES", "TrainingTable"]

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")

# Bounds on what a file may ask for: memory, and noise levels that float32 latents can hold.
_MOST_STEPS = 1_000_000
_SMALLEST_ALPHA_BAR = 2.0**-60


@dataclass(frozen=True)
class TrainingTable:
    """The discrete noise levels of training, by timestep 0..steps-1.

    Attributes:
        steps: Number of training timesteps (diffusers: num_train_timesteps).
        beta_start, beta_end, beta_schedule: As in diffusers.
        trained_betas: The betas themselves instead; their number must be `steps`.
        terminal_alpha_bar: None, or rescale the betas to zero terminal signal-to-noise ratio (Lin
            et al. 2024, algorithm 1) and then put this small number in the place of the last
            alpha_bar, which would be 0.
    """

    steps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    trained_betas: tuple[float, ...] | None = None
    terminal_alpha_bar: float | None = None

    def __post_init__(self) -> None:
        if self.trained_betas is not None:
            betas = _floats(self.trained_betas)
            object.__setattr__(self, "trained_betas", betas)
            object.__setattr__(self, "steps", len(betas))
        else:
            betas = (self.beta_start, self.beta_end)
        integer = isinstance(self.steps, (int, np.integer)) and not isinstance(self.steps, bool)
        if not (integer and 1 <= self.steps <= _MOST_STEPS):
            raise InvalidRequestError(
                f"training table: {self.steps!r} timesteps, allowed are 1..{_MOST_STEPS}.",
                param="steps",
            )
        if not all(0.0 < beta < 1.0 for beta in betas):
            raise InvalidRequestError(
                f"training table: betas {min(betas)!r}..{max(betas)!r}, allowed are numbers "
                "between 0 and 1.",
                param="beta_start" if self.trained_betas is None else "trained_betas",
            )
        if self.beta_schedule not in BETA_SCHEDULES:
            raise InvalidRequestError(
                f"training table: beta_schedule {self.beta_schedule!r}, allowed are "
                f"{', '.join(BETA_SCHEDULES)}.",
                param="beta_schedule",
            )

    @property
    def alpha_bars(self) -> np.ndarray:
        """float64 [steps], read-only: products of 1 - beta."""
        return _arrays(self)[0]

    @property
    def sigmas(self) -> np.ndarray:
        """float64 [steps], read-only: sqrt((1 - alpha_bar) / alpha_bar)."""
        return _arrays(self)[1]

    def sigma_of(self, timesteps: Sequence[float] | np.ndarray) -> np.ndarray:
        """Noise levels of (fractional) timesteps, linear in between, constant outside."""
        return np.interp(timesteps, np.arange(self.steps), self.sigmas)

    def timestep_of(self, sigma: float | np.ndarray) -> float | np.ndarray:
        """Fractional timesteps of noise levels, linear in log sigma, clipped to the table."""
        return np.interp(np.log(np.maximum(sigma, 1e-10)), _arrays(self)[2], np.arange(self.steps))


@lru_cache(maxsize=32)
def _arrays(table: TrainingTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    alpha_bars = np.cumprod(1.0 - _betas(table))
    if table.terminal_alpha_bar is not None:
        alpha_bars = _zero_terminal_snr(alpha_bars, table.terminal_alpha_bar)
    if alpha_bars.min() < _SMALLEST_ALPHA_BAR:
        raise InvalidRequestError(
            f"training table: 1 - beta multiplies to {float(alpha_bars.min())!r}, "
            f"allowed are numbers >= {_SMALLEST_ALPHA_BAR!r}.",
            param="trained_betas",
        )
    sigmas = np.sqrt((1.0 - alpha_bars) / alpha_bars)
    arrays = (alpha_bars, sigmas, np.log(sigmas))
    for array in arrays:
        array.flags.writeable = False
    return arrays


def _floats(values: Sequence[float]) -> tuple[float, ...]:
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError):
        raise InvalidRequestError(
            f"training table: trained_betas {values!r:.80}, allowed are numbers between 0 and 1.",
            param="trained_betas",
        ) from None


def _betas(table: TrainingTable) -> np.ndarray:
    if table.trained_betas is not None:
        return np.asarray(table.trained_betas, np.float64)
    if table.beta_schedule == "linear":
        return np.linspace(table.beta_start, table.beta_end, table.steps)
    if table.beta_schedule == "scaled_linear":
        return np.linspace(table.beta_start**0.5, table.beta_end**0.5, table.steps) ** 2
    # Nichol & Dhariwal 2021, equation 17, capped at 0.999.
    bars = [cos((i / table.steps + 0.008) / 1.008 * pi / 2) ** 2 for i in range(table.steps + 1)]
    return np.array([min(1 - b / a, 0.999) for a, b in pairwise(bars)])


def _zero_terminal_snr(alpha_bars: np.ndarray, terminal: float) -> np.ndarray:
    if len(alpha_bars) < 2 or not (isfinite(terminal) and 0 < terminal < 1):
        raise InvalidRequestError(
            f"training table: terminal_alpha_bar {terminal!r} with {len(alpha_bars)} timesteps, "
            "allowed are numbers between 0 and 1 and at least 2 timesteps.",
            param="terminal_alpha_bar",
        )
    roots = np.sqrt(alpha_bars)
    rescaled = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
    rescaled[-1] = terminal
    return rescaled
