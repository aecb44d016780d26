"""From diffusers' scheduler_config.json to a plan: sampler, noise levels, options.

Numbers follow the scheduler classes of diffusers, their quirks included, in float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from ..checks import (
    check_instance,
    check_mapping,
    check_numbers,
    refuse,
)
from ..errors import InvalidRequestError, UnsupportedModelError
from ..schedules.by_name import NAMED
from ..schedules.levels import SPACINGS, Schedule
from ..tracing import registry
from ..tracing.prediction import PREDICTIONS
from ..tracing.program import Program
from ..tracing.stepwise import StepByStep, step_by_step
from ..tracing.trace import Sampler, make_program
from .classes import CLASSES
from .continuous import CONTINUOUS, check_continuous, check_flow_levels, continuous_schedule
from .levels import class_schedule, named_schedule, noise_input_of, training_table
from .options import (
    OF_THE_FIRST_STEPS,
    VP_SAMPLERS,
    class_options,
    class_sampler,
    late_plms,
    latent_scale,
    shifted_by,
    tcd_schedule,
    threshold_options,
)
from .values import check_supported

__all__ = ["SCHEDULES", "Plan", "from_config", "prediction_of", "runnable_of", "trace_plan"]

_ALIASES = {"original_sample": "sample", "flow_prediction": "flow"}
# Names that `schedule=` takes.
SCHEDULES = (*SPACINGS, "karras", "exponential", "beta", *NAMED)


@dataclass(frozen=True)
class Plan:
    """Everything that `trace_plan` needs; hashable.

    Attributes:
        sampler: A registered name or a function.
        options: Of the sampler, as sorted (name, value) pairs.
        schedule: The noise levels.
        prediction: What the network predicts.
        scheduler_class: The class of diffusers whose rules were followed.
        vp_latents: That class shows its callers latents in the variance-preserving frame (of a
            flow: in the flow's).
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
        scales = [latent_scale(self.prediction == "flow", sigma) for sigma in sigmas]
        if dict(self.options).get("result_scale", 1.0) != 1.0:
            scales[-1] = 1.0
        return tuple(scales)

    def tail(self, start: int) -> Plan:
        """The plan without its first `start` steps (image-to-image)."""
        if start == 0:
            return self
        options = {k: v for k, v in self.options if k not in OF_THE_FIRST_STEPS}
        if self.sampler == "plms":
            schedule, more = late_plms(self.schedule, start)
        else:
            schedule, more = self.schedule.tail(start), {}
        return replace(self, schedule=schedule, options=tuple(sorted({**options, **more}.items())))


def from_config(
    config: Mapping[str, Any],
    num_inference_steps: int,
    *,
    sampler: str | Sampler | None = None,
    schedule: str | Schedule | None = None,
    timesteps: Sequence[float] | None = None,
    sigmas: Sequence[float] | None = None,
    eta: float = 0.0,
    mu: float | None = None,
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
        schedule: A name of `SCHEDULES` or a Schedule, instead of the config's.
        timesteps: The timesteps themselves, high to low.
        sigmas: The n+1 noise levels themselves, high to low; the last is usually 0.
        eta: Of DDIM and TCD; as in diffusers, other samplers do not look at it.
        mu: How far the times of a flow are shifted (more for larger images), where the config has
            use_dynamic_shifting.
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
    settings = shifted_by(mu, settings, rules)
    if schedule is not None and not isinstance(schedule, Schedule) and schedule not in SCHEDULES:
        refuse("schedule", schedule, f"are {', '.join(SCHEDULES)} or a Schedule")
    if sum(given is not None for given in (timesteps, sigmas, schedule)) > 1:
        raise InvalidRequestError(
            "schedule: got more than one of schedule, timesteps and sigmas, allowed is one.",
            param="schedule",
        )
    if settings.get("use_flow_sigmas"):
        check_flow_levels(
            class_name, {"schedule": schedule, "timesteps": timesteps, "sigmas": sigmas}
        )
    if class_name in CONTINUOUS:
        if not isinstance(schedule, Schedule):
            given = {"schedule": schedule, "timesteps": timesteps}
            levels = None if sigmas is None else list(check_numbers("sigmas", sigmas))
            schedule = continuous_schedule(class_name, settings, num_inference_steps, levels, given)
    elif isinstance(schedule, str) and schedule in NAMED:
        table = training_table(settings, rules)
        schedule = named_schedule(schedule, settings, rules, table, num_inference_steps)
    elif isinstance(schedule, str):
        settings = _with_schedule(settings, schedule)
    if isinstance(schedule, Schedule):
        if class_name not in CONTINUOUS and schedule.noise_input != noise_input_of(settings):
            raise InvalidRequestError(
                f"schedule: made for networks that take {schedule.noise_input}, allowed for this "
                f"model is {noise_input_of(settings)}.",
                hint="Make it with the model's training table (table=...).",
                param="schedule",
            )
    else:
        table = training_table(settings, rules)
        schedule = class_schedule(settings, rules, table, num_inference_steps, timesteps, sigmas)
        if sampler == "tcd" and timesteps is sigmas is None:
            schedule = tcd_schedule(schedule, table, eta)
    options = class_options(rules, sampler, settings, schedule, eta)
    options |= threshold_options(sampler, settings)
    options |= check_mapping("sampler_options", sampler_options, "is a mapping from name to value")
    return Plan(
        sampler=sampler,
        options=tuple(sorted(options.items())),
        schedule=schedule,
        prediction=prediction_of({**settings, "_class_name": class_name}),
        scheduler_class=class_name,
        vp_latents=rules.family not in ("euler", "edm", "ve"),
    )


def prediction_of(config: Mapping[str, Any]) -> str:
    """What the network of a config predicts; "epsilon" where the config does not say."""
    own_class = config.get("_class_name")
    rules = CLASSES.get(own_class) if isinstance(own_class, str) else None
    fixed = {} if rules is None else rules.fixed
    found = fixed.get("prediction_type", config.get("prediction_type"))
    if rules is not None and rules.family == "edm" and found != "v_prediction":
        return "edm"
    found = _ALIASES.get(found, found) if isinstance(found, str) else found
    # A value that is not known is refused by `from_config`, with the file's name.
    return found if isinstance(found, str) and found in PREDICTIONS else "epsilon"


def trace_plan(plan: Plan, *, inpaint: bool = False) -> Program:
    """The program of a plan; repeated calls give the same object.

    Raises:
        InvalidRequestError: As of `trace`; among it that the sampler runs step by step.
    """
    check_instance("plan", plan, Plan, "is what from_config gives")
    try:
        hash(plan)
    except TypeError:  # an option of the caller's own sampler cannot be hashed
        return _traced.__wrapped__(plan, inpaint)
    return _traced(plan, inpaint)


def runnable_of(plan: Plan, *, inpaint: bool = False) -> Program | StepByStep:
    """What `sample` runs for a plan: its program, or what stands for it step by step.

    Raises:
        InvalidRequestError: As of `trace`; or inpainting step by step.
    """
    if not (isinstance(plan.sampler, str) and plan.sampler in registry.STEP_BY_STEP):
        return trace_plan(plan, inpaint=inpaint)
    if inpaint:
        refuse("sampler", plan.sampler, "for inpainting are those that are traced")
    return step_by_step(plan.sampler, plan.schedule, plan.prediction, **dict(plan.options))


@lru_cache(maxsize=128)
def _traced(plan: Plan, inpaint: bool) -> Program:
    return make_program(
        plan.sampler,
        plan.schedule,
        plan.prediction,
        dict(plan.options),
        inpaint=inpaint,
        whole_levels=plan.sampler == "dpm_2",
    )


def _with_schedule(settings: dict[str, Any], schedule: str) -> dict[str, Any]:
    curves = ("karras_sigmas", "exponential_sigmas", "beta_sigmas", "lu_lambdas")
    changed = {**settings, **{f"use_{curve}": False for curve in curves}}
    if schedule in SPACINGS:
        return {**changed, "timestep_spacing": schedule}
    return {**changed, f"use_{schedule}_sigmas": True}
