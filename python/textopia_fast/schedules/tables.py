"""Training tables: the noise levels a network was trained on, from the betas of its config.

Everything here raises InvalidRequestError for values that are not allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from math import cos, pi

import numpy as np

from ..checks import check_choice, check_integer, check_number, check_numbers, refuse
from ..errors import InvalidRequestError

__all__ = ["BETA_SCHEDULES", "TrainingTable"]

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")

# Bounds on what a file may ask for: memory, and noise levels that float32 latents can hold.
_MOST_STEPS = 1_000_000
_SMALLEST_ALPHA_BAR = 2.0**-60
_BETAS = "are numbers between 0 and 1"


@dataclass(frozen=True)
class TrainingTable:
    """The discrete noise levels of training, by timestep 0..steps-1.

    Attributes:
        steps: Number of training timesteps (diffusers: num_train_timesteps).
        beta_start, beta_end, beta_schedule: As in diffusers.
        trained_betas: The betas themselves instead; `steps` is then how many they are.
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
            betas = check_numbers("trained_betas", self.trained_betas, _BETAS)
            object.__setattr__(self, "trained_betas", betas)
            object.__setattr__(self, "steps", len(betas))
        else:
            betas = check_numbers("betas", (self.beta_start, self.beta_end), _BETAS)
        check_integer("steps", self.steps, 1, _MOST_STEPS)
        if not all(0.0 < beta < 1.0 for beta in betas):
            param = "beta_start" if self.trained_betas is None else "trained_betas"
            refuse(param, betas, _BETAS)
        check_choice("beta_schedule", self.beta_schedule, BETA_SCHEDULES)
        terminal = self.terminal_alpha_bar
        if terminal is not None and not 0.0 < check_number("terminal_alpha_bar", terminal) < 1.0:
            refuse("terminal_alpha_bar", terminal, _BETAS)

    @property
    def alpha_bars(self) -> np.ndarray:
        """float64 [steps], read-only: products of 1 - beta."""
        return _arrays(self)[0]

    @property
    def sigmas(self) -> np.ndarray:
        """float64 [steps], read-only: sqrt((1 - alpha_bar) / alpha_bar)."""
        return _arrays(self)[1]

    def sigma_of(self, timesteps: Sequence[float] | np.ndarray) -> np.ndarray:
        """Noise levels of (fractional) timesteps, linear in between, constant outside.

        timesteps: [n], numbers. Returns float64 [n].
        """
        return np.asarray(np.interp(timesteps, np.arange(self.steps), self.sigmas))

    def timestep_of(self, sigmas: Sequence[float] | np.ndarray) -> np.ndarray:
        """Fractional timesteps of noise levels, linear in log sigma, clipped to the table.

        sigmas: [n], numbers. Returns float64 [n].
        """
        logs = np.log(np.maximum(sigmas, 1e-10))
        return np.asarray(np.interp(logs, _arrays(self)[2], np.arange(self.steps)))


@lru_cache(maxsize=32)
def _arrays(table: TrainingTable) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    alpha_bars = np.cumprod(1.0 - _betas(table))
    if table.terminal_alpha_bar is not None:
        alpha_bars = _zero_terminal_snr(alpha_bars, table.terminal_alpha_bar)
    if alpha_bars.min() < _SMALLEST_ALPHA_BAR:
        raise InvalidRequestError(
            f"trained_betas: 1 - beta multiplies to {float(alpha_bars.min())!r}, allowed are "
            f"numbers >= {_SMALLEST_ALPHA_BAR!r}.",
            param="trained_betas",
        )
    sigmas = np.sqrt((1.0 - alpha_bars) / alpha_bars)
    arrays = (alpha_bars, sigmas, np.log(sigmas))
    for array in arrays:
        array.flags.writeable = False
    return arrays


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
    if len(alpha_bars) < 2:
        raise InvalidRequestError(
            "terminal_alpha_bar: given with 1 timestep, allowed are at least 2.",
            param="terminal_alpha_bar",
        )
    roots = np.sqrt(alpha_bars)
    rescaled = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
    rescaled[-1] = terminal
    return np.asarray(rescaled)
