"""Schedules of the scheduler classes without a training table: flows, EDM, IPNDM, ScoreSdeVe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log, pi, sqrt
from typing import Any

import numpy as np

from ..checks import refuse
from ..errors import InvalidRequestError
from ..schedules.flow_times import flow_schedule, flow_times
from ..schedules.levels import Schedule, exponential_sigmas, karras_sigmas

__all__ = [
    "CONTINUOUS",
    "check_continuous",
    "check_flow_levels",
    "continuous_schedule",
]

CONTINUOUS = (
    "FlowMatchEulerDiscreteScheduler",
    "FlowMatchHeunDiscreteScheduler",
    "FlowMatchLCMScheduler",
    "EDMEulerScheduler",
    "EDMDPMSolverMultistepScheduler",
    "IPNDMScheduler",
    "ScoreSdeVeScheduler",
)
_FLOW_SAMPLERS = ("flow_euler", "flow_heun")

# What stands for IPNDM's first, infinite sigma; nothing depends on it.
_NEARLY_NOISE = 2.0**20


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


def check_flow_levels(class_name: str, given: Mapping[str, Any]) -> None:
    """Refuses levels of a variance-preserving table on a class with use_flow_sigmas.

    Raises:
        InvalidRequestError: Something else than a Schedule is given.
    """
    for name, value in given.items():
        if value is not None and not isinstance(value, Schedule):
            refuse(name, value, f"is a Schedule (tx.schedules.flow) with {class_name} on a flow")


def continuous_schedule(
    class_name: str,
    settings: Mapping[str, Any],
    n: int,
    sigmas: Sequence[float] | None,
    refused: Mapping[str, Any],
) -> Schedule:
    """The schedule of such a class; `sigmas` are n+1 noise levels of the caller.

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
    if class_name.startswith("EDM"):
        return _edm(settings, n, sigmas)
    if not class_name.startswith("Flow"):
        if sigmas is not None:
            refuse("sigmas", sigmas, f"is a Schedule with {class_name}")
        return _ipndm(n) if class_name == "IPNDMScheduler" else _variance_exploding(settings, n)
    if sigmas is None:
        return flow_schedule(settings, flow_times(settings, n))
    told = tuple(s / (1 + s) * settings["num_train_timesteps"] for s in sigmas[:-1])
    return Schedule(tuple(sigmas), told, 1.0 + sigmas[0])


def _ipndm(n: int) -> Schedule:
    """IPNDM's levels beta/alpha, beta = sin(u*pi/2)^2 with u even from 1 to 0, and its times."""
    beta = np.sin(np.linspace(1.0, 0.0, n + 1)[:-1] * pi / 2) ** 2
    alpha = np.sqrt(1.0 - beta * beta)
    levels = (_NEARLY_NOISE, *(beta[1:] / alpha[1:]).tolist(), 0.0)
    told = np.arctan2(beta, alpha) * 2 / pi
    return Schedule(levels, tuple(told), sqrt(1.0 + levels[0] ** 2))


def _variance_exploding(settings: Mapping[str, Any], n: int) -> Schedule:
    """ScoreSdeVe's geometric levels; the network is told sigma at times down to sampling_eps."""
    low, high = float(settings["sigma_min"]), float(settings["sigma_max"])
    times = np.linspace(1.0, settings["sampling_eps"], n)
    levels = np.exp(np.linspace(log(low), log(high), n))[::-1]
    told = low * (high / low) ** times
    return Schedule((*levels, 0.0), tuple(told), high, noise_input="sigma")


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
