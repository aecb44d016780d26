"""From diffusers' scheduler_config.json to a plan: sampler, noise levels, options.

Numbers follow the scheduler classes of diffusers, their quirks included, in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf, sqrt
from typing import Any

import numpy as np

from ..errors import InvalidRequestError, UnsupportedModelError
from . import registry
from .class_options import (
    OF_THE_FIRST_STEPS,
    ROUNDS_KARRAS,
    VP_SAMPLERS,
    class_options,
    class_sampler,
    lcm_timesteps,
    tcd_schedule,
)
from .continuous import CONTINUOUS, check_continuous, continuous_schedule
from .named_schedules import NAMED, named_sigmas
from .prediction import PREDICTIONS
from .program import Program
from .scheduler_classes import CLASSES, SchedulerClass, check_supported
from .schedules import (
    SPACINGS,
    Schedule,
    beta_sigmas,
    exponential_sigmas,
    final_sigma,
    karras_sigmas,
    spaced_scale,
    spaced_timesteps,
)
from .tables import TrainingTable
from .trace import Sampler, trace

__all__ = ["SCHEDULES", "Plan", "from_config", "trace_plan"]

# Names that `schedule=` takes.
SCHEDULES = (*SPACINGS, "karras", "exponential", "beta", *NAMED)

# What stands for alpha_bar = 0 at zero terminal SNR: diffusers' own value, and for DDIM and DDPM,
# which keep the exact 0 in the VP frame, one whose effect is below float32.
_TERMINAL_ALPHA_BAR = 2.0**-24
_TERMINAL_ALPHA_BAR_VP = 2.0**-48


@dataclass(frozen=True)
class Plan:
    """Everything that `trace_plan` needs; hashable.

    Attributes:
        sampler: A registered name or a function.
        options: Of the sampler, as sorted (name, value) pairs.
        schedule: The noise levels.
        prediction: What the network predicts.
        scheduler_class: The class of diffusers whose rules were followed.
        vp_latents: That class shows its callers latents in the variance-preserving frame.
    """

    sampler: str | Sampler
    options: tuple[tuple[str, Any], ...]
    schedule: Schedule
    prediction: str
    scheduler_class: str
    vp_latents: bool

    @property
    def timesteps(self) -> tuple[float, ...]:
        """One per sampler step (diffusers' Heun lists them once per network run instead)."""
        return self.schedule.timesteps

    @property
    def latent_scales(self) -> tuple[float, ...]:
        """Factor per step from the program's x at STEP to the latents that diffusers shows."""
        sigmas = self.schedule.sigmas[1:]
        if not self.vp_latents or self.sampler in VP_SAMPLERS:
            return (1.0,) * len(sigmas)
        scales = [1.0 / sqrt(1.0 + sigma * sigma) for sigma in sigmas]
        if ("vp_result", True) in self.options:
            scales[-1] = 1.0
        return tuple(scales)

    def tail(self, start: int) -> Plan:
        """The plan without its first `start` steps (image-to-image)."""
        options = tuple(o for o in self.options if o[0] not in OF_THE_FIRST_STEPS or start == 0)
        return replace(self, schedule=self.schedule.tail(start), options=options)


def from_config(
    config: Mapping[str, Any],
    num_inference_steps: int,
    *,
    sampler: str | Sampler | None = None,
    schedule: str | Schedule | None = None,
    timesteps: Sequence[float] | None = None,
    sigmas: Sequence[float] | None = None,
    eta: float = 0.0,
    **sampler_options: Any,
) -> Plan:
    """Plans a run from the contents of a scheduler_config.json.

    Args:
        config: `_class_name` and keys of that class; missing keys take diffusers' defaults, keys of
            other classes are allowed and ignored.
        num_inference_steps: Number of steps, unless `timesteps` or `sigmas` are given.
        sampler: Use this one instead of the class's. Where it belongs to another class of
            diffusers, the rules of that class are followed, and what it does not support in the
            config is ignored.
        schedule: A name of `SCHEDULES` or a Schedule, instead of the config's.
        timesteps: The timesteps themselves, high to low.
        sigmas: The n+1 noise levels themselves, high to low; the last is usually 0.
        eta: Of DDIM and TCD; as in diffusers, other samplers do not look at it.
        **sampler_options: Further options of the sampler.

    Raises:
        UnsupportedModelError: The class, or a value in the config, is not supported.
        InvalidRequestError: Another argument is not allowed.
    """
    own_class = config.get("_class_name", "")
    if sampler is None:
        if not isinstance(own_class, str) or own_class not in CLASSES:
            raise UnsupportedModelError(
                f"scheduler_config.json: class {own_class!r}, supported are {', '.join(CLASSES)}.",
                hint="Or name a sampler: that works with any config.",
                component="scheduler",
            )
        sampler = class_sampler(own_class, config)
        class_name = own_class
    elif own_class in CONTINUOUS:  # what the network was trained on comes with the class
        check_continuous(own_class, sampler)
        class_name = own_class
    elif callable(sampler):
        class_name = "EulerDiscreteScheduler"
    else:
        class_name = registry.get(sampler).diffusers_class
    rules = CLASSES[class_name]
    own = class_name == own_class and sampler == class_sampler(own_class, config)
    settings = dict(rules.defaults) if own else {**rules.defaults, **rules.foreign_defaults}
    # A live diffusers config lists here what its class only assumed; another class assumes its own.
    assumed = config.get("_use_default_values")
    assumed = assumed if isinstance(assumed, list) else []
    settings.update((k, v) for k, v in config.items() if k in rules.defaults and k not in assumed)
    check_supported(class_name, settings, strict=own or class_name in CONTINUOUS)
    settings.update(rules.fixed)
    if isinstance(schedule, str) and schedule not in SCHEDULES:
        raise InvalidRequestError(
            f"schedule: {schedule!r}, allowed are {', '.join(SCHEDULES)} or a Schedule.",
            param="schedule",
        )
    if sum(given is not None for given in (timesteps, sigmas, schedule)) > 1:
        raise InvalidRequestError(
            "schedule: more than one of schedule, timesteps, sigmas is given, allowed is one.",
            param="schedule",
        )
    if class_name in CONTINUOUS:
        if not isinstance(schedule, Schedule):
            given = {"schedule": schedule, "timesteps": timesteps}
            levels = None if sigmas is None else _numbers("sigmas", sigmas)
            schedule = continuous_schedule(class_name, settings, num_inference_steps, levels, given)
    elif isinstance(schedule, str) and schedule in NAMED:
        table = _table(settings, rules)
        levels = np.array(named_sigmas(schedule, num_inference_steps, table))
        told = np.asarray(table.timestep_of(levels[:-1]))
        whole = np.abs(told - told.round()) < 1e-6  # levels of the table itself
        schedule = _finish(settings, rules, table, np.where(whole, told.round(), told), levels)
    elif isinstance(schedule, str):
        settings = _with_schedule(settings, schedule)
    if not isinstance(schedule, Schedule):
        table = _table(settings, rules)
        schedule = _schedule(settings, rules, table, num_inference_steps, timesteps, sigmas)
        if sampler == "tcd" and timesteps is sigmas is None:
            schedule = tcd_schedule(schedule, table, eta)
    options = {**class_options(rules, sampler, settings, schedule, eta), **sampler_options}
    return Plan(
        sampler=sampler,
        options=tuple(sorted(options.items())),
        schedule=schedule,
        prediction=_prediction(settings["prediction_type"]),
        scheduler_class=class_name,
        vp_latents=rules.family in ("ddim", "ddpm", "dpm", "lcm", "flow"),
    )


def trace_plan(plan: Plan) -> Program:
    """The program of a plan; repeated calls give the same object."""
    try:
        hash(plan)
    except TypeError:  # an option of the caller's own sampler cannot be hashed
        return _traced.__wrapped__(plan)
    return _traced(plan)


@lru_cache(maxsize=128)
def _traced(plan: Plan) -> Program:
    return trace(plan.sampler, plan.schedule, plan.prediction, **dict(plan.options))


def _prediction(name: str) -> str:
    name = {"original_sample": "sample"}.get(name, name)
    if name not in PREDICTIONS:
        raise UnsupportedModelError(
            f"scheduler_config.json: prediction_type {name!r}, supported are "
            f"{', '.join(PREDICTIONS)}.",
            component="scheduler",
        )
    return name


def _table(settings: Mapping[str, Any], rules: SchedulerClass) -> TrainingTable:
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


def _with_schedule(settings: dict[str, Any], schedule: str) -> dict[str, Any]:
    curves = ("karras_sigmas", "exponential_sigmas", "beta_sigmas", "lu_lambdas")
    changed = {**settings, **{f"use_{curve}": False for curve in curves}}
    if schedule in SPACINGS:
        return {**changed, "timestep_spacing": schedule}
    return {**changed, f"use_{schedule}_sigmas": True}


def _schedule(
    settings: Mapping[str, Any],
    rules: SchedulerClass,
    table: TrainingTable,
    n: int,
    timesteps: Sequence[float] | None,
    sigmas: Sequence[float] | None,
) -> Schedule:
    if sigmas is not None:
        levels = np.asarray(_numbers("sigmas", sigmas))
        told = table.timestep_of(levels[:-1])
        return _finish(settings, rules, table, told, levels)
    curve = _curve(settings)
    if timesteps is not None:
        if curve:
            raise InvalidRequestError(
                "timesteps: given together with Karras or exponential sigmas, allowed is one.",
                param="timesteps",
            )
        told = np.asarray(_numbers("timesteps", timesteps))
        if np.any(told < 0) or np.any(told >= table.steps) or np.any(np.diff(told) >= 0):
            raise InvalidRequestError(
                f"timesteps: {list(timesteps)!r:.80}, allowed are falling numbers in "
                f"0..{table.steps - 1}.",
                param="timesteps",
            )
        return _finish(settings, rules, table, told)
    told = _spaced(settings, rules, table, n)
    if not curve:
        return _finish(settings, rules, table, told, ratio=table.steps // n)
    whole = rules.family == "dpm"  # over the whole table, told in integers
    ends = table.sigmas[[-1, 0]] if whole else table.sigma_of(told)[[0, -1]]
    low, high = settings.get("sigma_min"), settings.get("sigma_max")
    low = float(ends[1]) if low is None else low
    levels = curve(n, low, float(ends[0]) if high is None else high)
    told = np.asarray(table.timestep_of(np.array(levels[:-1])))
    karras = settings.get("use_karras_sigmas")
    if not whole:
        rounds = karras and rules.sampler in ROUNDS_KARRAS
        return _finish(settings, rules, table, told.round() if rounds else told, levels)
    cosine = settings["beta_schedule"] == "squaredcos_cap_v2"
    exact = cosine and "use_lu_lambdas" in rules.defaults  # DPMSolverMultistep
    if (karras or settings.get("use_lu_lambdas")) and not exact:
        told = told.round()
    return _finish(settings, rules, table, np.floor(told), levels)


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
    continuous = (
        settings.get("timestep_type") == "continuous"
        and settings["prediction_type"] == "v_prediction"
    )
    if continuous:  # Stable Video Diffusion's networks take c_noise = log(sigma)/4
        told = 0.25 * np.log(np.asarray(sigmas[:-1]))
    return Schedule(
        sigmas=tuple(sigmas),
        timesteps=tuple(told),
        initial_scale=scale,
        noise_input="log_sigma" if continuous else "timestep",
        noise_scale=0.25 if continuous else 1.0,
        table=table,
        targets=None if targets is None else tuple(targets),
    )


def _final(settings: Mapping[str, Any], rules: SchedulerClass, table: TrainingTable) -> float:
    if rules.family == "ddim":
        return 0.0 if settings["set_alpha_to_one"] else final_sigma("sigma_min", table)
    return final_sigma(settings.get("final_sigmas_type", "zero"), table)


def _numbers(name: str, values: Sequence[float]) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError):
        numbers = []
    if not numbers or not np.all(np.isfinite(numbers)):
        raise InvalidRequestError(
            f"{name}: {list(values)!r:.80}, allowed are finite numbers.", param=name
        )
    return numbers
