"""Schedules that user interfaces offer by name, as ComfyUI defines them, from a training table.

Each function takes the number of steps and the table and gives noise levels from high to low, the
last 0. Times are (fractional) timesteps; between them sigma is interpolated in its logarithm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import atan, tan

import numpy as np

from ..checks import check_integer
from .beta import inverse_beta
from .levels import exponential_sigmas, polyexponential_sigmas, vp_sigmas
from .tables import TrainingTable

__all__ = ["NAMED", "named_sigmas"]

# Sabour et al. 2024 (Align Your Steps), the published schedules of ten steps.
_AYS = {
    "ays": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "ays_xl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
}

# Chen et al. 2024 (GITS), the schedules found for Stable Diffusion with coefficient 1.20: one of
# each length from 2 steps to 20, in hundredths of the training time.
_GITS = (
    (100, 29),
    (100, 49, 18),
    (100, 61, 33, 11),
    (100, 66, 42, 21, 6),
    (100, 83, 57, 34, 15, 3),
    (100, 83, 62, 42, 23, 8, 1),
    (100, 83, 62, 45, 29, 15, 6, 1),
    (100, 83, 66, 50, 34, 21, 11, 4, 1),
    (100, 83, 66, 51, 38, 27, 17, 9, 4, 1),
    (100, 83, 67, 54, 42, 30, 21, 13, 7, 3, 1),
    (100, 83, 68, 56, 45, 34, 25, 17, 11, 6, 3, 1),
    (100, 86, 71, 61, 49, 38, 29, 21, 15, 10, 6, 3, 1),
    (100, 86, 71, 62, 50, 40, 31, 23, 17, 12, 8, 5, 3, 1),
    (100, 88, 78, 68, 58, 48, 38, 30, 23, 17, 12, 8, 5, 3, 1),
    (100, 88, 78, 68, 58, 48, 38, 30, 23, 17, 13, 9, 6, 4, 2, 1),
    (100, 88, 78, 68, 58, 48, 38, 30, 23, 17, 13, 10, 7, 5, 3, 2, 1),
    (100, 88, 78, 68, 59, 50, 41, 33, 26, 20, 15, 11, 8, 6, 4, 3, 2, 1),
    (100, 88, 78, 68, 59, 50, 42, 34, 27, 21, 16, 12, 9, 7, 5, 4, 3, 2, 1),
    (100, 88, 78, 68, 59, 50, 42, 34, 27, 21, 17, 13, 10, 8, 6, 5, 4, 3, 2, 1),
)


def named_sigmas(name: str, n: int, table: TrainingTable) -> list[float]:
    """The noise levels of a schedule of `NAMED`.

    Raises:
        InvalidRequestError: The number of steps is not allowed.
    """
    n = check_integer("num_inference_steps", n, 1, table.steps)
    return [float(sigma) for sigma in NAMED[name](n, table)]


def _at(times: Sequence[float] | np.ndarray, table: TrainingTable) -> list[float]:
    logs = np.interp(times, np.arange(table.steps), np.log(table.sigmas))
    return [float(sigma) for sigma in np.exp(logs)]


def _normal(n: int, table: TrainingTable) -> list[float]:
    return [*_at(np.linspace(table.steps - 1, 0, n), table), 0.0]


def _sgm_uniform(n: int, table: TrainingTable) -> list[float]:
    return [*_at(np.linspace(table.steps - 1, 0, n + 1)[:-1], table), 0.0]


def _simple(n: int, table: TrainingTable) -> list[float]:
    return [*(table.sigmas[-1 - int(i * table.steps / n)] for i in range(n)), 0.0]


def _ddim_uniform(n: int, table: TrainingTable) -> list[float]:
    # From the second timestep up at a whole stride: often one step more than was asked for.
    return [*table.sigmas[1 :: max(table.steps // n, 1)][::-1], 0.0]


def _beta_timesteps(n: int, table: TrainingTable) -> list[float]:
    # Lee et al. 2024 on whole timesteps; what rounds to the same one is taken once.
    quantiles = [inverse_beta(1 - i / n, 0.6, 0.6) for i in range(n)]
    # the median may miss a tie by a rounding error
    times = dict.fromkeys(int(np.rint(round(q * (table.steps - 1), 9))) for q in quantiles)
    return [*(table.sigmas[t] for t in times), 0.0]


def _kl_optimal(n: int, table: TrainingTable) -> list[float]:
    # Sabour et al. 2024, equation 11: even in arctan(sigma).
    low, high = atan(table.sigmas[0]), atan(table.sigmas[-1])
    return [*(tan(high + (low - high) * i / max(n - 1, 1)) for i in range(n)), 0.0]


def _linear_quadratic(n: int, table: TrainingTable) -> list[float]:
    # Mochi's: half of the steps at slope 0.025/(n//2), then a parabola that meets it smoothly
    # and reaches 1 at n; what is left to 1, times the largest sigma.
    flat = n // 2
    if flat == 0:
        return [table.sigmas[-1], 0.0]
    slope, rest = 0.025 / flat, n - flat
    curve = (1 - 0.025 - slope * rest) / rest**2
    done = [slope * i + curve * max(i - flat, 0) ** 2 for i in range(n)]
    return [*((1 - d) * table.sigmas[-1] for d in done), 0.0]


def _polyexponential(n: int, table: TrainingTable) -> Sequence[float]:
    return polyexponential_sigmas(n, float(table.sigmas[0]), float(table.sigmas[-1]))


def _lu_lambdas(n: int, table: TrainingTable) -> Sequence[float]:
    # Lu et al. 2022 (DPM-Solver), section 3.4: even in lambda
    return exponential_sigmas(n, float(table.sigmas[0]), float(table.sigmas[-1]))


def _vp(n: int, table: TrainingTable) -> Sequence[float]:
    return vp_sigmas(n)


def _gits(n: int, table: TrainingTable) -> list[float]:
    row = (100,) if n == 1 else _GITS[min(n, len(_GITS) + 1) - 2]
    levels = np.log(_at((table.steps - 1) / 100 * np.array([*row, 0]), table))
    spaced = np.interp(np.linspace(0, len(row), n + 1), np.arange(len(row) + 1), levels)
    return [*np.exp(spaced[:-1]).tolist(), 0.0]


def _align_your_steps(name: str) -> Callable[[int, TrainingTable], list[float]]:
    def levels(n: int, table: TrainingTable) -> list[float]:
        logs = np.log(_AYS[name])
        spaced = np.interp(np.linspace(0, 1, n + 1), np.linspace(0, 1, len(logs)), logs)
        return [*np.exp(spaced[:-1]).tolist(), 0.0]

    return levels


NAMED: dict[str, Callable[[int, TrainingTable], Sequence[float]]] = {
    "normal": _normal,
    "sgm_uniform": _sgm_uniform,
    "simple": _simple,
    "ddim_uniform": _ddim_uniform,
    "beta_timesteps": _beta_timesteps,
    "kl_optimal": _kl_optimal,
    "linear_quadratic": _linear_quadratic,
    "polyexponential": _polyexponential,
    "lu_lambdas": _lu_lambdas,
    "vp": _vp,
    "gits": _gits,
    "ays": _align_your_steps("ays"),
    "ays_xl": _align_your_steps("ays_xl"),
}
