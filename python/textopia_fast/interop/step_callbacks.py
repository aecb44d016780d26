"""Callbacks written for diffusers, called from `textopia_fast.Pipeline`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from ..arrays import as_used
from ..callbacks import RunningCall, StepEndCallback
from ..checks import check_integer, refuse

__all__ = ["step_callback"]


def step_callback(
    owner: Any,
    on_step_end: Callable[..., Any] | None,
    callback: Callable[..., Any] | None,
    callback_steps: Any,
    order: int,
) -> StepEndCallback | None:
    """One callback that does what diffusers' two arguments ask for; None when nobody watches.

    Args:
        owner: The pipeline that callbacks take the call for.
        on_step_end: `callback_on_step_end`.
        callback: The older `callback(step, timestep, latents)`.
        callback_steps: ... which is called every so many evaluations.
        order: Evaluations per step of the scheduler.
    """
    every = 1
    if callback_steps is not None:
        every = check_integer("callback_steps", callback_steps, 1, sys.maxsize)
    for name, given in (("callback_on_step_end", on_step_end), ("callback", callback)):
        if given is not None and not callable(given):
            refuse(name, given, "is a function")
    if on_step_end is None and callback is None:
        return None

    def call(state: RunningCall, step: int, timestep: float, values: dict[str, Any]) -> Any:
        state.owner = owner
        shown = {name: None if v is None else as_used(v) for name, v in values.items()}
        returned: Any = dict(shown)
        when = _as_timestep(timestep)
        if on_step_end is not None:
            returned = on_step_end(state, step, when, shown)
        if callback is not None:
            is_last = step == state.num_timesteps - 1
            if (is_last or (step + 1) % order == 0) and step % every == 0:
                latents = shown["latents"]
                if isinstance(returned, Mapping):
                    latents = returned.get("latents", latents)
                callback(step // order, when, latents)
        return returned

    return call


def _as_timestep(timestep: float) -> Any:
    """A tensor without axes in a program that uses torch, as diffusers gives it."""
    torch = sys.modules.get("torch")
    value = int(timestep) if timestep == int(timestep) else timestep
    return value if torch is None else torch.tensor(value)
