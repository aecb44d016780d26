"""The guidance of each network run, from what a call of the pipeline asks for."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import Any

from .checks import check_number, check_numbers, refuse
from .errors import InvalidRequestError
from .samplers import Plan, Program, StepByStep
from .tracing.program import Denoise, Step
from .tracing.trace import seen_sigmas

__all__ = ["CFG_PP_GUIDANCE", "check_guidance", "check_interval", "reads_uncond", "run_guidance"]

# Of CFG++ samplers where the caller names none: the paper's counterpart of 7.5.
CFG_PP_GUIDANCE = 0.6


def check_guidance(value: Any) -> float | tuple[float, ...]:
    """`guidance_scale`: a finite number, or a sequence of them, one per step."""
    if isinstance(value, numbers.Real):
        return check_number("guidance_scale", value)
    values = check_numbers("guidance_scale", value, "are a finite number, or one per step")
    if not values:
        refuse("guidance_scale", value, "are a finite number, or one per step")
    return values


def check_interval(value: Any) -> tuple[float, float] | None:
    """`guidance_interval`: None or (low, high) in sigma, 0 <= low < high; high may be infinite."""
    if value is None:
        return None
    try:
        low, high = (float(number) for number in value)
    except (TypeError, ValueError):
        low = high = math.nan
    if not 0.0 <= low < high:
        refuse("guidance_interval", value, "are (low, high) in sigma, 0 <= low < high")
    return low, high


def reads_uncond(program: Program | StepByStep) -> bool:
    """Whether it is of a CFG++ sampler."""
    return isinstance(program, Program) and program.reads_uncond


def run_guidance(
    plan: Plan,
    program: Program | StepByStep,
    guidance: float | Sequence[float],
    interval: tuple[float, float] | None,
) -> list[float]:
    """The guidance of every network run; 1 runs the positive half alone.

    One value for all of a step-by-step sampler, which does not know how many they will be.

    Args:
        plan, program: What is to run.
        guidance: One value, or one per step. 1 or less is none (diffusers' rule), but for programs
            that read the unconditional half: those have theirs between 0 and 1.
        interval: Guide only where low < sigma <= high (Kynkäänniemi et al. 2024, arXiv 2404.07724).

    Raises:
        InvalidRequestError: There are not as many values as steps, or a step-by-step sampler gets
            more than one value.
    """
    if isinstance(program, StepByStep):
        if not isinstance(guidance, (int, float)):
            refuse("guidance_scale", guidance, "is one number with a step-by-step sampler")
        if interval is not None:
            refuse("guidance_interval", interval, "is None with a step-by-step sampler")
        return [max(guidance, 1.0)]
    per_step = [guidance] if isinstance(guidance, (int, float)) else list(guidance)
    if not isinstance(guidance, (int, float)) and len(per_step) != program.step_count:
        raise InvalidRequestError(
            f"guidance_scale: {len(per_step)} values for {program.step_count} steps, allowed are "
            "one number, or one per step.",
            param="guidance_scale",
        )
    if not program.reads_uncond:
        per_step = [max(value, 1.0) for value in per_step]
    values: list[float] = []
    step = 0
    for i in program.instructions:
        if isinstance(i, Denoise):
            values.append(per_step[min(step, len(per_step) - 1)])
        elif isinstance(i, Step):
            step += 1
    if interval is not None:
        if program.reads_uncond:  # guidance 1 would be the strongest there
            refuse("guidance_interval", interval, "is None with CFG++ samplers")
        low, high = interval
        sigmas = seen_sigmas(plan.sampler, plan.schedule, dict(plan.options))
        values = [g if low < s <= high else 1.0 for g, s in zip(values, sigmas, strict=True)]
    return values
