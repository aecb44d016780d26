"""Samplers that no program can hold, because what they do next depends on what they found.

They are written like the others, `sampler(m, x, sigmas, **options) -> x`, and run from Python on
arrays; each `m.denoise` is one native network run, guidance and conversion of its output included.
What they may use:

    m.denoise(x, sigma), m.score(x, sigma)       as in `trace`
    m.noise()                                    a fresh unit normal array like x; or of an interval
                                                 of noise levels, m.noise(sigma, sigma_next)
    m.uniform()                                  [B] numbers in 0..1, one per image
    m.step(x, denoised=x0, info={...})           cancellation, deadline, progress, preview

and everything that arrays can do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..checks import check_choice
from ..schedules.levels import Schedule, explicit
from . import registry
from .options import bind_options
from .prediction import PREDICTIONS
from .trace import Sampler

__all__ = ["StepByStep", "step_by_step"]


@dataclass(frozen=True)
class StepByStep:
    """A sampler with its schedule and options, for `sample`; made by `step_by_step`.

    Attributes:
        name: Of the sampler.
        function: The sampler.
        schedule: The noise levels; adaptive samplers look at the first and the last.
        prediction: What the network predicts.
        options: As (name, value) pairs.
    """

    name: str
    function: Callable[..., Any]
    schedule: Schedule
    prediction: str
    options: tuple[tuple[str, Any], ...]

    @property
    def initial_scale(self) -> float:
        """Factor on unit normal noise that makes the initial latent."""
        return self.schedule.initial_scale

    @property
    def step_count(self) -> int:
        """0: how many steps there will be is not known."""
        return 0


def step_by_step(
    sampler: str | Sampler,
    schedule: Schedule | Sequence[float],
    prediction: str = "epsilon",
    **options: Any,
) -> StepByStep:
    """What `trace` is for the others: makes of a step-by-step sampler what `sample` runs.

    Args:
        sampler: A name of `STEP_BY_STEP`, or a function (m, x, sigmas, **options) -> x; also one
            that could be traced.
        schedule: A Schedule, or n+1 sigmas (the network is then told sigma itself).
        prediction: What the network predicts.
        **options: Of the sampler.

    Raises:
        InvalidRequestError: Unknown name or option.
    """
    check_choice("prediction", prediction, PREDICTIONS)
    if not callable(sampler):
        sampler = registry.get(sampler).function
    name = registry.name_of(sampler)
    if not isinstance(schedule, Schedule):
        schedule = explicit(schedule)
    bound = bind_options(name, sampler, schedule, options)
    return StepByStep(name, sampler, schedule, prediction, tuple(bound.items()))
