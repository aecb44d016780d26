"""Schedules of the scheduler classes without a training table: flow matching and EDM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log, sqrt
from typing import Any

import numpy as np

from ..errors import InvalidRequestError
from .schedules import (
    Schedule,
    beta_sigmas,
    exponential_sigmas,
    karras_sigmas,
)

__all__ = ["CONTINUOUS", "check_continuous", "continuous_schedule", "flow_times"]

CONTINUOUS = (
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "EDMEulerScheduler",
)
_FLOW_SAMPLERS = ("flow_euler", "flow_heun")

# What stands for tau = 1, where sigma = tau/(1-tau) is infinite: off by less than 1e-12.
_LARGEST_SIGMA = 2.0**40


def check_continuous(class_name: str, sampler: Any) -> None:
    """Refuses registered samplers that hold latents of the size of sigma on a flow.

    Raises:
        InvalidRequestError: The sampler does not fit the class.
    """
    flow = class_name.startswith("Flow")
    if flow and isinstance(sampler, str) and sampler not in _FLOW_SAMPLERS:
        raise InvalidRequestError(
            f"sampler: {sampler!r}, allowed are {', '.join(_FLOW_SAMPLERS)} or a function with "
            f"{class_name}.",
            param="sampler",
        )


def continuous_schedule(
    class_name: str,
    settings: Mapping[str, Any],
    n: int,
    sigmas: Sequence[float] | None,
    refused: Mapping[str, Any],
) -> Schedule:
    """The schedule of a flow matching or EDM class; `sigmas` are n+1 noise levels of the caller.

    Raises:
        InvalidRequestError: One of `refused` is given, or the number of steps is not allowed.
    """
    for name, value in refused.items():
        if value is not None:
            raise InvalidRequestError(
                f"{name}: {value!r}, allowed is a Schedule or sigmas with {class_name}.", param=name
            )
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or n < 1:
        raise InvalidRequestError(
            f"num_inference_steps: {n!r}, allowed are integers >= 1.", param="num_inference_steps"
        )
    if class_name == "EDMEulerScheduler":
        return _edm(settings, n, sigmas)
    if sigmas is None:
        times = flow_times(settings, n)
        levels = [min(tau / max(1 - tau, 1e-300), _LARGEST_SIGMA) for tau in (*times, 0.0)]
    else:
        levels = list(sigmas)
        times = [s / (1 + s) for s in levels[:-1]]
    told = tuple(tau * settings["num_train_timesteps"] for tau in times)
    return Schedule(tuple(levels), told, 1.0 + levels[0])


def flow_times(settings: Mapping[str, Any], n: int) -> list[float]:
    """n times from 1 down, as FlowMatchEulerDiscrete spaces, shifts and stretches them."""
    shift, steps = float(settings["shift"]), settings["num_train_timesteps"]
    lowest = _shifted(1 / steps, shift)
    times = [_shifted(tau, shift) for tau in np.linspace(1.0, lowest, n).tolist()]
    terminal = settings.get("shift_terminal")
    if terminal:
        if n < 2:
            raise InvalidRequestError(
                "num_inference_steps: 1, allowed are integers >= 2 with shift_terminal.",
                param="num_inference_steps",
            )
        stretch = (1 - times[-1]) / (1 - terminal)
        times = [1 - (1 - tau) / stretch for tau in times]
    for key, curve in (
        ("use_karras_sigmas", karras_sigmas),
        ("use_exponential_sigmas", exponential_sigmas),
        ("use_beta_sigmas", beta_sigmas),
    ):
        if settings.get(key):
            times = list(curve(n, times[-1], times[0])[:-1])
    return times


def _shifted(tau: float, shift: float) -> float:
    return shift * tau / (1 + (shift - 1) * tau)


def _edm(settings: Mapping[str, Any], n: int, sigmas: Sequence[float] | None) -> Schedule:
    low, high = float(settings["sigma_min"]), float(settings["sigma_max"])
    if sigmas is not None:
        levels = tuple(sigmas)
    elif settings["sigma_schedule"] == "karras":
        levels = karras_sigmas(n, low, high, float(settings["rho"]))
    elif n == 1:
        levels = (low, 0.0)  # one point of the exponential schedule is its low end in diffusers
    else:
        levels = exponential_sigmas(n, low, high)
    if sigmas is None and settings["final_sigmas_type"] == "sigma_min":
        levels = (*levels[:-1], levels[-2])
    told = tuple(0.25 * log(s) for s in levels[:-1])
    return Schedule(levels, told, sqrt(high**2 + 1), noise_input="log_sigma", noise_scale=0.25)
