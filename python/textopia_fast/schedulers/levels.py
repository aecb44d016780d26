"""The noise levels that a scheduler class of diffusers visits, from its settings.

Numbers follow those classes, their quirks included, in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf, sqrt
from typing import Any

import numpy as np

from ..checks import check_integer, check_numbers, refuse
from ..errors import InvalidRequestError, UnsupportedModelError
from ..schedules.by_name import named_sigmas
from ..schedules.flow_times import flow_level, solver_times
from ..schedules.levels import (
    Schedule,
    beta_sigmas,
    check_falling,
    exponential_sigmas,
    final_sigma,
    karras_sigmas,
    spaced_scale,
    spaced_timesteps,
)
from ..schedules.tables import TrainingTable
from .classes import SchedulerClass
from .options import ROUNDS_KARRAS, lcm_timesteps

__all__ = [
    "class_schedule",
    "named_schedule",
    "noise_input_of",
    "solver_flow_schedule",
    "training_table",
]

# What stands for alpha_bar = 0 at zero terminal SNR: diffusers' own value, and for DDIM and DDPM,
# which keep the exact 0 in the VP frame, one whose effect is below float32.
_TERMINAL_ALPHA_BAR = 2.0**-24
_TERMINAL_ALPHA_BAR_VP = 2.0**-48


def noise_input_of(settings: Mapping[str, Any]) -> str:
    """What the network of a config is told: "timestep", or "log_sigma"."""
    continuous = settings.get("timestep_type") == "continuous"
    return (
        "log_sigma" if continuous and settings["prediction_type"] == "v_prediction" else "timestep"
    )


def training_table(settings: Mapping[str, Any], rules: SchedulerClass) -> TrainingTable:
    """The noise levels that the network of a config was trained on.

    Raises:
        UnsupportedModelError: The config's numbers make no table.
    """
    terminal = None
    if settings.get("rescale_betas_zero_snr"):
        vp = rules.family in ("ddim", "ddpm", "lcm")
        terminal = _TERMINAL_ALPHA_BAR_VP if vp else _TERMINAL_ALPHA_BAR
    betas = settings["trained_betas"]
    try:
        table = TrainingTable(
            steps=settings["num_train_timesteps"],
            beta_start=settings["beta_start"],
            beta_end=settings["beta_end"],
            beta_schedule=settings["beta_schedule"],
            trained_betas=betas,
            terminal_alpha_bar=terminal,
        )
        _ = table.sigmas  # made now, so that betas that cannot be used are found here
    except InvalidRequestError as error:
        raise UnsupportedModelError(
            f"scheduler_config.json: {error.message}", component="scheduler"
        ) from error
    return table


def class_schedule(
    settings: Mapping[str, Any],
    rules: SchedulerClass,
    table: TrainingTable,
    n: int,
    timesteps: Sequence[float] | None,
    sigmas: Sequence[float] | None,
) -> Schedule:
    """The noise levels of a class: `sigmas` or `timesteps` where given, else n spaced ones.

    Raises:
        InvalidRequestError: An argument is not allowed.
    """
    if sigmas is not None:
        levels = np.asarray(check_numbers("sigmas", sigmas))
        if len(levels) < 2:
            refuse("sigmas", sigmas, "are at least two numbers, the last usually 0")
        check_falling(levels.tolist())
        told = table.timestep_of(levels[:-1])
        return _finish(settings, rules, table, told, levels)
    curve = _curve(settings)
    if timesteps is not None:
        if curve:
            raise InvalidRequestError(
                "timesteps: got Karras or exponential sigmas as well, allowed is one of them.",
                param="timesteps",
            )
        told = np.asarray(check_numbers("timesteps", timesteps))
        inside = np.all((told >= 0) & (told < table.steps)) and np.all(np.diff(told) < 0)
        if not told.size or not inside:
            refuse("timesteps", timesteps, f"are falling numbers in 0..{table.steps - 1}")
        return _finish(settings, rules, table, told)
    if settings.get("use_flow_sigmas"):
        return solver_flow_schedule(settings, table, n)
    told = _spaced(settings, rules, table, n)
    even_logs = settings.get("interpolation_type") == "log_linear"
    if not curve:
        ends = table.sigmas[[-1, 0]]
        even = np.geomspace(ends[0], ends[1], n + 1) if even_logs else None
        return _finish(settings, rules, table, told, even, ratio=table.steps // n)
    whole = rules.family == "dpm" or even_logs  # over the whole table; "dpm" told in integers
    ends = table.sigmas[[-1, 0]] if whole else table.sigma_of(told)[[0, -1]]
    given_low, given_high = settings.get("sigma_min"), settings.get("sigma_max")
    low = float(ends[1]) if given_low is None else given_low
    high = float(ends[0]) if given_high is None else given_high
    curved = curve(n, low, high)
    told = table.timestep_of(curved[:-1])
    karras = settings.get("use_karras_sigmas")
    if rules.family != "dpm":
        rounds = karras and rules.sampler in ROUNDS_KARRAS
        return _finish(settings, rules, table, told.round() if rounds else told, curved)
    cosine = settings["beta_schedule"] == "squaredcos_cap_v2"
    exact = cosine and "use_lu_lambdas" in rules.defaults  # DPMSolverMultistep
    if (karras or settings.get("use_lu_lambdas")) and not exact:
        told = told.round()
    return _finish(settings, rules, table, np.floor(told), curved)


def named_schedule(
    name: str, settings: Mapping[str, Any], rules: SchedulerClass, table: TrainingTable, n: int
) -> Schedule:
    """n steps over the levels that user interfaces know by `name` (see `schedules.by_name`)."""
    levels = np.array(named_sigmas(name, n, table))
    told = table.timestep_of(levels[:-1])
    whole = np.abs(told - told.round()) < 1e-6  # levels of the table itself
    return _finish(settings, rules, table, np.where(whole, told.round(), told), levels)


def _curve(settings: Mapping[str, Any]) -> Callable[..., tuple[float, ...]] | None:
    if settings.get("use_karras_sigmas"):
        return karras_sigmas
    if settings.get("use_lu_lambdas") or settings.get("use_exponential_sigmas"):
        return exponential_sigmas
    return beta_sigmas if settings.get("use_beta_sigmas") else None


def _spaced(
    settings: Mapping[str, Any], rules: SchedulerClass, table: TrainingTable, n: int
) -> np.ndarray:
    spacing, offset = settings["timestep_spacing"], settings["steps_offset"]
    if spacing == "lcm":
        return lcm_timesteps(n, table.steps, settings["original_inference_steps"])
    if rules.family != "dpm":
        rounded = rules.family != "euler"
        return spaced_timesteps(n, table.steps, spacing, offset, rounded=rounded)
    last = table.steps
    lowest = settings.get("lambda_min_clipped", -inf)
    if lowest > -inf:
        lambdas = -np.log(table.sigmas)[::-1]
        last -= int(np.searchsorted(lambdas, lowest))
        if last < 1:
            raise UnsupportedModelError(
                f"scheduler_config.json: lambda_min_clipped {lowest!r} "
                f"leaves no timestep, supported are numbers up to {lambdas[-1]:.6g}.",
                component="scheduler",
            )
    return spaced_timesteps(n, table.steps, spacing, offset, rounded=True, open_end=True, last=last)


def _finish(
    settings: Mapping[str, Any],
    rules: SchedulerClass,
    table: TrainingTable,
    told: np.ndarray,
    levels: Sequence[float] | np.ndarray | None = None,
    ratio: int | None = None,
) -> Schedule:
    """A Schedule with the last sigma, the initial scale and the targets of the class.

    `levels` are n+1 given sigmas; of a curve the last is replaced by the class's final sigma, and
    without `levels` they follow from the timesteps. `ratio` is T//n where DDIM steps by it.
    """
    sigmas = list(table.sigma_of(told) if levels is None else levels[:-1])
    if levels is None or isinstance(levels, tuple):
        sigmas.append(_final(settings, rules, table))
    else:
        sigmas.append(levels[-1])
    if rules.family == "euler":
        scale = spaced_scale(max(sigmas), settings["timestep_spacing"])
    else:
        scale = sqrt(1.0 + sigmas[0] ** 2)
    targets = None
    if rules.family == "ddim" and ratio is not None:
        # diffusers steps to t - T//n, whatever the next listed timestep is.
        stepped = told - ratio
        targets = np.where(stepped >= 0, table.sigma_of(stepped), sigmas[-1])
    noise_input = noise_input_of(settings)
    continuous = noise_input == "log_sigma"
    if continuous:  # Stable Video Diffusion's networks take c_noise = log(sigma)/4
        told = 0.25 * np.log(np.asarray(sigmas[:-1]))
    return Schedule(
        sigmas=tuple(sigmas),
        timesteps=tuple(told),
        initial_scale=scale,
        noise_input=noise_input,
        noise_scale=0.25 if continuous else 1.0,
        table=table,
        targets=None if targets is None else tuple(targets),
    )


def solver_flow_schedule(
    settings: Mapping[str, Any],
    table: TrainingTable,
    n: int,
    times: Sequence[float] | None = None,
) -> Schedule:
    """The levels of a flow on a class with use_flow_sigmas; the network is told whole timesteps.

    times: n of the caller to be shifted, for UniPC.
    """
    check_integer("num_inference_steps", n, 1, table.steps)
    times = solver_times(settings, n, times)
    levels = [flow_level(tau) for tau in times]
    last = 0.0
    if settings.get("final_sigmas_type") == "sigma_min":
        # DPM-Solver takes the table's smallest sigma for a time, the others their own last one
        own = flow_level(float(table.sigmas[0]))
        last = min(own, levels[-1]) if "euler_at_final" in settings else levels[-1]
    told = tuple(float(int(tau * settings["num_train_timesteps"])) for tau in times)
    return Schedule((*levels, last), told, 1.0 + levels[0], table=table)


def _final(settings: Mapping[str, Any], rules: SchedulerClass, table: TrainingTable) -> float:
    if rules.family == "ddim":
        return 0.0 if settings["set_alpha_to_one"] else final_sigma("sigma_min", table)
    return final_sigma(settings.get("final_sigmas_type", "zero"), table)
