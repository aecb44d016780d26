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

from ..checks import (
    check_instance,
    check_integer,
    check_mapping,
    check_number,
    check_numbers,
    refuse,
)
from ..errors import InvalidRequestError, UnsupportedModelError
from . import registry
from .prediction import PREDICTIONS
from .program import Program
from .scheduler_classes import CLASSES, SchedulerClass, check_supported
from .schedules import (
    SPACINGS,
    Schedule,
    exponential_sigmas,
    final_sigma,
    karras_sigmas,
    spaced_scale,
    spaced_timesteps,
)
from .tables import TrainingTable
from .trace import Sampler, make_program

__all__ = ["SCHEDULES", "Plan", "from_config", "trace_plan"]

# Names that `schedule=` takes.
SCHEDULES = (*SPACINGS, "karras", "exponential")

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
        if not self.vp_latents or self.sampler in (
            "ddim",
            "ddpm",
        ):  # those two hold VP latents themselves
            return (1.0,) * len(sigmas)
        scales = [1.0 / sqrt(1.0 + sigma * sigma) for sigma in sigmas]
        if ("vp_result", True) in self.options:
            scales[-1] = 1.0
        return tuple(scales)

    def tail(self, start: int) -> Plan:
        """The plan without its first `start` steps (image-to-image)."""
        return replace(self, schedule=self.schedule.tail(start))


def from_config(
    config: Mapping[str, Any],
    num_inference_steps: int,
    *,
    sampler: str | Sampler | None = None,
    schedule: str | Schedule | None = None,
    timesteps: Sequence[float] | None = None,
    sigmas: Sequence[float] | None = None,
    eta: float = 0.0,
    sampler_options: Mapping[str, Any] | None = None,
) -> Plan:
    """Plans a run from the contents of a scheduler_config.json.

    Args:
        config: `_class_name` and keys of that class; missing keys take diffusers' defaults, keys of
            other classes are allowed and ignored.
        num_inference_steps: Number of steps, unless `timesteps` or `sigmas` are given.
        sampler: Use this one instead of the class's. Where it belongs to another class of
            diffusers, the rules of that class are followed, and what it does not support in the
            config is ignored.
        schedule: "leading", "linspace", "trailing", "karras", "exponential", or a Schedule, instead
            of the config's.
        timesteps: The timesteps themselves, high to low.
        sigmas: The n+1 noise levels themselves, high to low; the last is usually 0.
        eta: Of DDIM; as in diffusers, other samplers do not look at it.
        sampler_options: Options of the sampler by name; they come before what the config says.

    Raises:
        UnsupportedModelError: The class, or a value in the config, is not supported.
        InvalidRequestError: Another argument is not allowed.
    """
    check_instance("config", config, Mapping, "is what a scheduler_config.json holds")
    own_class = config.get("_class_name", "")
    if sampler is None:
        if not isinstance(own_class, str) or own_class not in CLASSES:
            raise UnsupportedModelError(
                f"scheduler_config.json: class {own_class!r}, supported are {', '.join(CLASSES)}.",
                hint="Or name a sampler: that works with any config.",
                component="scheduler",
            )
        sampler = CLASSES[own_class].sampler
        class_name = own_class
    elif callable(sampler):
        class_name = "EulerDiscreteScheduler"
    else:
        class_name = registry.get(sampler).diffusers_class
    rules = CLASSES[class_name]
    own = class_name == own_class and sampler == rules.sampler
    settings = dict(rules.defaults) if own else {**rules.defaults, **rules.foreign_defaults}
    # A live diffusers config lists here what its class only assumed; another class assumes its own.
    assumed = config.get("_use_default_values")
    assumed = assumed if isinstance(assumed, list) else []
    settings.update((k, v) for k, v in config.items() if k in rules.defaults and k not in assumed)
    check_supported(class_name, settings, strict=own)
    if schedule is not None and not isinstance(schedule, Schedule) and schedule not in SCHEDULES:
        refuse("schedule", schedule, f"are {', '.join(SCHEDULES)} or a Schedule")
    if sum(given is not None for given in (timesteps, sigmas, schedule)) > 1:
        raise InvalidRequestError(
            "schedule: got more than one of schedule, timesteps and sigmas, allowed is one.",
            param="schedule",
        )
    if isinstance(schedule, str):
        settings = _with_schedule(settings, schedule)
    if isinstance(schedule, Schedule):
        if schedule.noise_input != _noise_input(settings):
            raise InvalidRequestError(
                f"schedule: made for networks that take {schedule.noise_input}, allowed for this "
                f"model is {_noise_input(settings)}.",
                hint="Give the schedule the model's training table: table=....",
                param="schedule",
            )
    else:
        table = _table(settings, rules)
        schedule = _schedule(settings, rules, table, num_inference_steps, timesteps, sigmas)
    options = _class_options(rules, sampler, settings, schedule, eta)
    options |= check_mapping("sampler_options", sampler_options, "is a mapping from name to value")
    return Plan(
        sampler=sampler,
        options=tuple(sorted(options.items())),
        schedule=schedule,
        prediction=_prediction(settings["prediction_type"]),
        scheduler_class=class_name,
        vp_latents=rules.family in ("ddim", "ddpm", "dpm"),
    )


def trace_plan(plan: Plan) -> Program:
    """The program of a plan; repeated calls give the same object.

    Raises:
        InvalidRequestError: As of `trace`.
    """
    check_instance("plan", plan, Plan, "is what from_config gives")
    try:
        hash(plan)
    except TypeError:  # an option of the caller's own sampler cannot be hashed
        return _traced.__wrapped__(plan)
    return _traced(plan)


@lru_cache(maxsize=128)
def _traced(plan: Plan) -> Program:
    return make_program(plan.sampler, plan.schedule, plan.prediction, dict(plan.options))


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
        vp = rules.family in ("ddim", "ddpm")
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
    changed = {**settings, "use_karras_sigmas": False, "use_exponential_sigmas": False}
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
        levels = np.asarray(check_numbers("sigmas", sigmas))
        if len(levels) < 2:
            refuse("sigmas", sigmas, "are at least two numbers, the last usually 0")
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
    check_integer("num_inference_steps", n, 1, table.steps)
    told = _spaced(settings, rules, table, n)
    if not curve:
        return _finish(settings, rules, table, told, ratio=table.steps // n)
    if rules.family == "dpm":  # over the whole table, told in integers
        low, high = float(table.sigmas[0]), float(table.sigmas[-1])
        curved = curve(n, low, high)
        told = table.timestep_of(curved[:-1])
        if settings["use_karras_sigmas"] and settings["beta_schedule"] != "squaredcos_cap_v2":
            told = told.round()
        return _finish(settings, rules, table, np.floor(told), curved)
    # Between the ends of the spaced levels, told in fractions.
    ends = table.sigma_of(told)
    given_low, given_high = settings.get("sigma_min"), settings.get("sigma_max")
    low = float(ends[-1]) if given_low is None else given_low
    high = float(ends[0]) if given_high is None else given_high
    curved = curve(n, low, high)
    return _finish(settings, rules, table, table.timestep_of(curved[:-1]), curved)


def _curve(settings: Mapping[str, Any]) -> Callable[..., tuple[float, ...]] | None:
    if settings.get("use_karras_sigmas"):
        return karras_sigmas
    return exponential_sigmas if settings.get("use_exponential_sigmas") else None


def _spaced(
    settings: Mapping[str, Any], rules: SchedulerClass, table: TrainingTable, n: int
) -> np.ndarray:
    spacing, offset = settings["timestep_spacing"], settings["steps_offset"]
    if rules.family != "dpm":
        rounded = rules.family in ("ddim", "ddpm")
        return spaced_timesteps(n, table.steps, spacing, offset, rounded=rounded)
    last = table.steps
    if settings["lambda_min_clipped"] > -inf:
        lambdas = -np.log(table.sigmas)[::-1]
        last -= int(np.searchsorted(lambdas, settings["lambda_min_clipped"]))
        if last < 1:
            raise UnsupportedModelError(
                f"scheduler_config.json: lambda_min_clipped {settings['lambda_min_clipped']!r} "
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
    noise_input = _noise_input(settings)
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


def _noise_input(settings: Mapping[str, Any]) -> str:
    continuous = settings.get("timestep_type") == "continuous"
    return (
        "log_sigma" if continuous and settings["prediction_type"] == "v_prediction" else "timestep"
    )


def _final(settings: Mapping[str, Any], rules: SchedulerClass, table: TrainingTable) -> float:
    if rules.family == "ddim":
        return 0.0 if settings["set_alpha_to_one"] else final_sigma("sigma_min", table)
    return final_sigma(settings.get("final_sigmas_type", "zero"), table)


def _class_options(
    rules: SchedulerClass,
    sampler: str | Sampler,
    settings: Mapping[str, Any],
    schedule: Schedule,
    eta: float,
) -> dict[str, Any]:
    """The sampler options that the class's settings stand for."""
    clip = float(settings["clip_sample_range"]) if settings.get("clip_sample") else None
    if sampler == "ddim":
        return {"eta": _eta(eta), "clip": clip}
    if sampler == "ddpm":
        return {"variance": settings["variance_type"], "clip": clip}
    if sampler == "heun":
        return {"clip": clip}
    if sampler == "dpmpp_2m":
        few = settings["lower_order_final"] and schedule.step_count < 15
        return {
            "order": settings["solver_order"],
            "euler_at_final": bool(settings["euler_at_final"] or few),
            "vp_result": schedule.sigmas[-1] > 0.0,
        }
    return {}


def _eta(eta: float) -> float:
    eta = check_number("eta", eta)
    if eta < 0.0:
        refuse("eta", eta, "are numbers >= 0")
    return eta
