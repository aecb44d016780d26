"""The samplers by name. Each enters itself, by `@sampler(...)`, in the file where it is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from ..checks import refuse, shown
from ..errors import InvalidRequestError

__all__ = [
    "SAMPLERS",
    "STEP_BY_STEP",
    "SamplerInfo",
    "get",
    "name_of",
    "names",
    "resolve",
    "sampler",
]

Function = TypeVar("Function", bound=Callable[..., Any])


class SamplerInfo(NamedTuple):
    """One sampler.

    `update` is its step in one line of mathematics (letters: docs/samplers.md), `schedule` the
    timestep spacing that suits it, `diffusers_class` the scheduler class of diffusers whose
    defaults apply when it is used on a scheduler config.
    """

    name: str
    function: Callable[..., Any]
    summary: str
    update: str
    paper: str
    schedule: str
    diffusers_class: str


SAMPLERS: dict[str, SamplerInfo] = {}
"""Those that are traced: fixed steps, run natively."""

STEP_BY_STEP: dict[str, SamplerInfo] = {}
"""Those that decide as they go: run from Python over native network runs (see `step_by_step`)."""


def sampler(
    summary: str,
    *,
    update: str,
    paper: str,
    schedule: str = "linspace",
    diffusers_class: str = "EulerDiscreteScheduler",
    is_traced: bool = True,
) -> Callable[[Function], Function]:
    """Enters the function below it as the sampler of its name; arguments as of `SamplerInfo`."""

    def enter(function: Function) -> Function:
        name = name_of(function)
        info = SamplerInfo(name, function, summary, update, paper, schedule, diffusers_class)
        (SAMPLERS if is_traced else STEP_BY_STEP)[name] = info
        return function

    return enter


def names() -> tuple[str, ...]:
    """The names of the samplers that are traced."""
    return tuple(SAMPLERS)


def get(name: str) -> SamplerInfo:
    """The sampler of that name, traced or step by step.

    Raises:
        InvalidRequestError: There is none; the hint gives the nearest names.
    """
    known = {**SAMPLERS, **STEP_BY_STEP}
    info = known.get(name) if isinstance(name, str) else None
    if info is None:
        from difflib import get_close_matches  # a millisecond that only this error needs

        close = get_close_matches(shown(name).lower(), known, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(close)}?" if close else None
        refuse("sampler", name, f"are {', '.join(known)} or a function", hint=hint)
    return info


def resolve(sampler: str | Callable[..., Any]) -> tuple[str, Callable[..., Any]]:
    """(name, function) of what can be traced: a registered name, or the caller's own function.

    Raises:
        InvalidRequestError: There is no such name, or its sampler runs step by step.
    """
    name = sampler if isinstance(sampler, str) else None
    info = next((i for i in STEP_BY_STEP.values() if name == i.name or sampler is i.function), None)
    if info is not None:
        raise InvalidRequestError(
            f"sampler: {info.name} runs step by step, allowed for a program are "
            f"{', '.join(SAMPLERS)} or a function.",
            hint="samplers.step_by_step makes what `sample` runs; a pipeline takes the name.",
            param="sampler",
        )
    if callable(sampler):
        return name_of(sampler), sampler
    info = get(sampler)
    return info.name, info.function


def name_of(function: Callable[..., Any]) -> str:
    """What a function is called in messages and results."""
    return getattr(function, "__name__", type(function).__name__)
