"""The times of a flow, 1 at pure noise and 0 at the clean latent: spaced, shifted, stretched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InvalidRequestError
from .levels import Schedule, beta_sigmas, exponential_sigmas, karras_sigmas

__all__ = ["flow_level", "flow_schedule", "flow_times", "solver_times"]

# What stands for tau = 1, where sigma = tau/(1-tau) is infinite: off by less than 1e-12.
_LARGEST_SIGMA = 2.0**40
# UniPC's first time is this much below 1.
_BELOW_ONE = 1e-6


def flow_level(tau: float) -> float:
    """The noise level of a time: sigma in x0 + sigma*eps, which is the flow's latent/(1 - tau)."""
    return min(tau / max(1 - tau, 1e-300), _LARGEST_SIGMA)


def flow_times(
    settings: Mapping[str, Any], n: int, times: Sequence[float] | None = None
) -> list[float]:
    """n times from 1 down, as FlowMatchEulerDiscrete spaces, shifts and stretches them.

    times: n of the caller to be shifted and stretched, instead of evenly spaced ones.
    """
    shift, steps = float(settings["shift"]), settings["num_train_timesteps"]
    if times is None:
        # diffusers shifts the ends of its default times twice, unless the shift comes with a run
        lowest = 1 / steps
        lowest = lowest if settings.get("use_dynamic_shifting") else _shifted(lowest, shift)
        times = np.linspace(1.0, lowest, n).tolist()
    times = _stretched([_shifted(tau, shift) for tau in times], settings)
    for key, curve in (
        ("use_karras_sigmas", karras_sigmas),
        ("use_exponential_sigmas", exponential_sigmas),
        ("use_beta_sigmas", beta_sigmas),
    ):
        if settings.get(key):
            times = list(curve(len(times), times[-1], times[0])[:-1])
    return times


def solver_times(
    settings: Mapping[str, Any], n: int, times: Sequence[float] | None = None
) -> list[float]:
    """n times as the classes with use_flow_sigmas space them: UniPC its way, the others theirs.

    times: n of the caller to be shifted and stretched, for UniPC.
    """
    shift, steps = float(settings["flow_shift"]), settings["num_train_timesteps"]
    if "predict_x0" not in settings:
        # in diffusers' order of operations: it cuts the timesteps that follow to whole ones
        even = (1.0 - np.linspace(1.0, 1.0 / steps, n + 1))[:0:-1]
        return [_shifted(tau, shift) for tau in even.tolist()]
    given = np.linspace(1.0, 1.0 / steps, n + 1)[:-1].tolist() if times is None else times
    times = _stretched([_shifted(tau, shift) for tau in given], settings)
    if abs(times[0] - 1.0) < _BELOW_ONE:
        times[0] -= _BELOW_ONE
    return times


def flow_schedule(
    settings: Mapping[str, Any], times: Sequence[float], told: Sequence[float] | None = None
) -> Schedule:
    """The schedule of a flow's times, ending at 0; `told` are the timesteps where they differ."""
    levels = [flow_level(tau) for tau in times]
    if told is None:
        told = [tau * settings["num_train_timesteps"] for tau in times]
    return Schedule((*levels, 0.0), tuple(told), 1.0 + levels[0])


def _shifted(tau: float, shift: float) -> float:
    return shift * tau / (1 + (shift - 1) * tau)


def _stretched(times: list[float], settings: Mapping[str, Any]) -> list[float]:
    """So that the last time is shift_terminal."""
    terminal = settings.get("shift_terminal")
    if not terminal:
        return times
    if times[-1] >= 1.0:
        raise InvalidRequestError(
            "num_inference_steps: 1, allowed are integers >= 2 with shift_terminal.",
            param="num_inference_steps",
        )
    stretch = (1 - times[-1]) / (1 - terminal)
    return [1 - (1 - tau) / stretch for tau in times]
