"""Schedules: the noise levels that a sampler visits and what the network is told at each.

All in the frame x = x0 + sigma*eps. Numbers follow diffusers and k-diffusion, in float64 (they keep
float32). Everything here raises InvalidRequestError for values that are not allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from math import expm1, log, sqrt
from types import NoneType

import numpy as np

from ..checks import (
    check_choice,
    check_instance,
    check_integer,
    check_number,
    check_numbers,
    refuse,
)
from ..errors import InvalidRequestError
from .beta import inverse_beta
from .tables import TrainingTable

__all__ = [
    "NOISE_INPUTS",
    "SPACINGS",
    "Schedule",
    "TrainingTable",
    "beta_sigmas",
    "check_falling",
    "discrete",
    "explicit",
    "exponential",
    "exponential_sigmas",
    "flow",
    "karras",
    "karras_sigmas",
    "named",
    "polyexponential_sigmas",
    "spaced_timesteps",
    "vp_sigmas",
]

SPACINGS = ("leading", "linspace", "trailing")
# Beyond these a typo, not a wish.
_MOST_LEVELS = 1_000_000
_MOST_BETA = 600.0
NOISE_INPUTS = ("timestep", "sigma", "log_sigma")


@dataclass(frozen=True)
class Schedule:
    """Noise levels from high to low.

    Attributes:
        sigmas: n+1 values; the sampler makes n steps between neighbours. The first n are > 0, the
            last may be 0.
        timesteps: n values: what the network is told at the first n sigmas.
        initial_scale: Factor on unit normal noise that makes the initial latent.
        noise_input: What the network is told at other sigmas: the "timestep" of `table`, "sigma" or
            "log_sigma".
        noise_scale: Factor on that for "sigma" and "log_sigma"; 0.25 with "log_sigma" is c_noise of
            Karras et al. 2022.
        table: The training table, needed for "timestep" at sigmas that are not in `sigmas`.
        targets: None, or n values that DDIM steps to instead of sigmas[1:] (see
            `scheduler_config`).
    """

    sigmas: tuple[float, ...]
    timesteps: tuple[float, ...]
    initial_scale: float
    noise_input: str = "timestep"
    noise_scale: float = 1.0
    table: TrainingTable | None = None
    targets: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("sigmas", "timesteps", "targets"):
            values = getattr(self, name)
            if values is not None or name != "targets":
                object.__setattr__(self, name, check_numbers(name, values))
        for name in ("initial_scale", "noise_scale"):
            object.__setattr__(self, name, check_number(name, getattr(self, name)))
        check_instance("table", self.table, (TrainingTable, NoneType), "is a TrainingTable")
        if (
            not 2 <= len(self.sigmas) <= _MOST_LEVELS + 1
            or min(self.sigmas[:-1]) <= 0.0
            or self.sigmas[-1] < 0.0
        ):
            raise InvalidRequestError(
                f"sigmas: got {_short(self.sigmas)}, allowed are at least two and at most "
                f"{_MOST_LEVELS + 1}, all > 0 but for the last, which may be 0.",
                param="sigmas",
            )
        for name in ("timesteps", "targets"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.sigmas) - 1:
                raise InvalidRequestError(
                    f"{name}: {len(values)} {name} for {len(self.sigmas)} sigmas, allowed are "
                    f"{len(self.sigmas) - 1}.",
                    param=name,
                )
        check_choice("noise_input", self.noise_input, NOISE_INPUTS)
        if self.initial_scale <= 0.0:
            refuse("initial_scale", self.initial_scale, "are finite numbers > 0")

    @property
    def step_count(self) -> int:
        """Number of sampler steps."""
        return len(self.timesteps)

    def noise_level(self, sigma: float) -> float:
        """What the network is told at `sigma` > 0: exact for the schedule's own sigmas."""
        known = self._levels.get(sigma)
        if known is not None:
            return known
        return _noise_level(sigma, self.noise_input, self.noise_scale, self.table)

    def tail(self, start: int) -> Schedule:
        """The schedule without its first `start` steps (image-to-image starts in the middle)."""
        check_integer("start", start, 0, self.step_count - 1)
        return replace(
            self,
            sigmas=self.sigmas[start:],
            timesteps=self.timesteps[start:],
            targets=None if self.targets is None else self.targets[start:],
        )

    @cached_property
    def _levels(self) -> dict[float, float]:
        levels: dict[float, float] = {}
        for sigma, timestep in zip(self.sigmas, self.timesteps, strict=False):
            levels.setdefault(sigma, timestep)
        return levels


def check_falling(sigmas: Sequence[float]) -> None:
    """Refuses noise levels that rise; only adaptive samplers go up, from data to noise."""
    for before, after in pairwise(sigmas):
        if after > before:
            raise InvalidRequestError(
                f"sigmas: {after:.6g} after {before:.6g}, allowed are numbers that do not rise.",
                param="sigmas",
            )


def explicit(
    sigmas: Sequence[float],
    timesteps: Sequence[float] | None = None,
    *,
    table: TrainingTable | None = None,
    noise_input: str | None = None,
    noise_scale: float = 1.0,
    initial_scale: float | None = None,
) -> Schedule:
    """A schedule of given sigmas (n+1 values).

    Without `timesteps` (n values) the network is told the timestep of `table` where there is one,
    else sigma. The initial scale is the largest sigma unless given.
    """
    sigmas = check_numbers("sigmas", sigmas)
    check_instance("table", table, (TrainingTable, NoneType), "is a TrainingTable")
    if noise_input is None:
        noise_input = "sigma" if table is None and timesteps is None else "timestep"
    check_choice("noise_input", noise_input, NOISE_INPUTS)
    noise_scale = check_number("noise_scale", noise_scale)
    if timesteps is None:
        timesteps = tuple(
            _noise_level(sigma, noise_input, noise_scale, table) for sigma in sigmas[:-1]
        )
    scale = max(sigmas, default=0.0) if initial_scale is None else initial_scale
    return Schedule(
        sigmas, check_numbers("timesteps", timesteps), scale, noise_input, noise_scale, table
    )


def discrete(
    n: int,
    table: TrainingTable,
    *,
    spacing: str = "leading",
    steps_offset: int = 0,
    final: str = "zero",
    initial_scale: float | None = None,
) -> Schedule:
    """n noise levels of a training table (diffusers' Euler rules).

    Args:
        n: Number of steps.
        table: The noise levels of training.
        spacing: "leading", "linspace" or "trailing".
        steps_offset: Added to the timesteps of "leading".
        final: The last sigma: "zero", or "sigma_min" for the smallest of the table.
        initial_scale: Default: the largest sigma s, for "leading" sqrt(s^2 + 1) as diffusers has
            it.
    """
    check_instance("table", table, TrainingTable, "is a TrainingTable")
    timesteps = spaced_timesteps(n, table.steps, spacing, steps_offset)
    sigmas = (*table.sigma_of(timesteps).tolist(), final_sigma(final, table))
    if initial_scale is None:
        initial_scale = spaced_scale(max(sigmas), spacing)
    return Schedule(sigmas, tuple(timesteps.tolist()), initial_scale, table=table)


def karras(
    n: int,
    sigma_min: float,
    sigma_max: float,
    rho: float = 7.0,
    *,
    table: TrainingTable | None = None,
) -> Schedule:
    """n noise levels of Karras et al. 2022, equation 5, then 0."""
    return explicit(karras_sigmas(n, sigma_min, sigma_max, rho), table=table)


def exponential(
    n: int, sigma_min: float, sigma_max: float, *, table: TrainingTable | None = None
) -> Schedule:
    """n noise levels evenly spaced in log sigma, then 0."""
    return explicit(exponential_sigmas(n, sigma_min, sigma_max), table=table)


def named(name: str, n: int, table: TrainingTable) -> Schedule:
    """n noise levels by a name that user interfaces know, then 0.

    name: "normal", "sgm_uniform", "simple", "ddim_uniform", "beta_timesteps", "kl_optimal",
    "linear_quadratic", "polyexponential", "lu_lambdas", "vp", "gits", "ays" or "ays_xl".
    """
    from .by_name import NAMED, named_sigmas  # which is made of what is here

    check_instance("table", table, TrainingTable, "is a TrainingTable")
    return explicit(named_sigmas(check_choice("name", name, NAMED), n, table), table=table)


def flow(n: int, shift: float = 1.0, *, shift_terminal: float | None = None) -> Schedule:
    """n times of a flow from 1 down, then 0; the network is told 1000 times the time.

    Args:
        n: Number of steps.
        shift: s in s*tau/(1 + (s-1)*tau) (Esser et al. 2024, equation 23): more than 1 spends more
            steps near the noise. e^mu is diffusers' dynamic shift.
        shift_terminal: The last time before 0, to which the others are stretched.
    """
    from .flow_times import flow_schedule, flow_times  # which are made of what is here

    if check_number("shift", shift) <= 0.0:
        refuse("shift", shift, "are numbers > 0")
    if shift_terminal is not None and not 0.0 < check_number("shift_terminal", shift_terminal) < 1:
        refuse("shift_terminal", shift_terminal, "are numbers between 0 and 1")
    n = check_integer("n", n, 1, _MOST_LEVELS)
    settings = {"num_train_timesteps": 1000, "shift": shift, "shift_terminal": shift_terminal}
    return flow_schedule(settings, flow_times(settings, n, np.linspace(1.0, 1e-3, n).tolist()))


def karras_sigmas(
    n: int, sigma_min: float, sigma_max: float, rho: float = 7.0
) -> tuple[float, ...]:
    """Karras et al. 2022, equation 5: n values even in sigma^(1/rho), and 0."""
    _check_range(n, sigma_min, sigma_max)
    _check_rho(rho)
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    ramp = np.linspace(0.0, 1.0, n)
    return (*((high + ramp * (low - high)) ** rho).tolist(), 0.0)


def exponential_sigmas(n: int, sigma_min: float, sigma_max: float) -> tuple[float, ...]:
    """n values even in log sigma, and 0 (k-diffusion)."""
    return polyexponential_sigmas(n, sigma_min, sigma_max, 1.0)


def polyexponential_sigmas(
    n: int, sigma_min: float, sigma_max: float, rho: float = 1.0
) -> tuple[float, ...]:
    """n values polynomial in log sigma, and 0 (k-diffusion)."""
    _check_range(n, sigma_min, sigma_max)
    _check_rho(rho)
    ramp = np.linspace(1.0, 0.0, n) ** rho
    return (*np.exp(ramp * (log(sigma_max) - log(sigma_min)) + log(sigma_min)).tolist(), 0.0)


def vp_sigmas(
    n: int, beta_d: float = 19.9, beta_min: float = 0.1, eps_s: float = 1e-3
) -> tuple[float, ...]:
    """n values of the continuous variance-preserving schedule, and 0 (Song et al. 2021)."""
    _check_range(n, eps_s, 1.0)
    for name, value in (("beta_d", beta_d), ("beta_min", beta_min)):
        if not 0.0 < check_number(name, value) <= _MOST_BETA:
            refuse(name, value, f"are numbers > 0, up to {_MOST_BETA:g}")
    times = np.linspace(1.0, eps_s, n)
    return (*(sqrt(expm1(beta_d * t * t / 2 + beta_min * t)) for t in times.tolist()), 0.0)


def beta_sigmas(
    n: int, sigma_min: float, sigma_max: float, alpha: float = 0.6, beta: float = 0.6
) -> tuple[float, ...]:
    """n quantiles of the beta distribution, and 0 (Lee et al. 2024, arXiv 2407.12173)."""
    _check_range(n, sigma_min, sigma_max)
    quantiles = [inverse_beta(p, alpha, beta) for p in np.linspace(1.0, 0.0, n).tolist()]
    return (*(sigma_min + q * (sigma_max - sigma_min) for q in quantiles), 0.0)


def spaced_timesteps(
    n: int,
    steps: int,
    spacing: str,
    steps_offset: int = 0,
    *,
    rounded: bool = False,
    open_end: bool = False,
    last: int | None = None,
) -> np.ndarray:
    """float64 [n]: timesteps from high to low, by the three rules of diffusers.

    Args:
        n: How many, 1..steps.
        steps: Number of training timesteps.
        spacing: "leading", "linspace" or "trailing".
        steps_offset: Added to those of "leading".
        rounded: Round "linspace" to integers (DDIM, DDPM, DPM-Solver; the Euler family keeps
            fractions).
        open_end: Space n+1 and leave out the last (DPM-Solver).
        last: Highest timestep plus one, where not `steps` (DPM-Solver's lambda_min_clipped).
    """
    check_integer("steps", steps, 1, _MOST_LEVELS)
    check_integer("num_inference_steps", n, 1, steps)
    check_choice("timestep_spacing", spacing, SPACINGS)
    steps_offset = check_integer("steps_offset", steps_offset, 0, _MOST_LEVELS)
    last = steps if last is None else last
    points = n + 1 if open_end else n
    if spacing == "linspace":
        timesteps = np.linspace(0, last - 1, points)
        timesteps = (timesteps.round() if rounded else timesteps)[::-1]
    elif spacing == "leading":
        timesteps = (np.arange(points) * (last // points))[::-1].astype(np.float64) + steps_offset
    else:
        timesteps = np.arange(last, 0, -steps / n).round() - 1
    return np.array(timesteps[:n])


def spaced_scale(sigma_max: float, spacing: str) -> float:
    """diffusers' init_noise_sigma of the Euler family."""
    return sigma_max if spacing in ("linspace", "trailing") else sqrt(sigma_max**2 + 1)


def final_sigma(final: str, table: TrainingTable) -> float:
    """The last sigma: 0, or the smallest of the table."""
    check_choice("final_sigmas_type", final, ("zero", "sigma_min"))
    return 0.0 if final == "zero" else float(table.sigmas[0])


def _noise_level(
    sigma: float, noise_input: str, noise_scale: float, table: TrainingTable | None
) -> float:
    if noise_input == "sigma":
        return sigma * noise_scale
    if noise_input == "log_sigma":
        return log(max(sigma, 1e-300)) * noise_scale
    if table is None:
        raise InvalidRequestError(
            f"schedule: the network wants timesteps and none is known for sigma {sigma!r}, allowed "
            "are the schedule's own sigmas.",
            hint="Give the schedule its training table.",
            param="table",
        )
    timestep = float(table.timestep_of([sigma])[0])
    # A level of the table itself must not miss its timestep: some networks take whole ones.
    return float(round(timestep)) if abs(timestep - round(timestep)) < 1e-6 else timestep


def _check_range(n: int, sigma_min: float, sigma_max: float) -> None:
    check_integer("n", n, 1, _MOST_LEVELS)
    if not 0.0 < check_number("sigma_min", sigma_min) <= check_number("sigma_max", sigma_max):
        refuse("sigma_min", sigma_min, f"are numbers with 0 < sigma_min <= sigma_max = {sigma_max}")


def _check_rho(rho: float) -> None:
    if check_number("rho", rho) <= 0.0:
        refuse("rho", rho, "are numbers > 0")


def _short(values: tuple[float, ...]) -> str:
    shown = ", ".join(f"{value:.6g}" for value in values[:4])
    return f"({shown}{', ...' if len(values) > 4 else ''})"
