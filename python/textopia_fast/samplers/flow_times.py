"""The times of a flow, 1 at pure noise and 0 at the clean latent: spaced, shifted, stretched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import exp
from typing import Any

import numpy as np

from ..checks import check_number, refuse
from ..errors import InvalidRequestError
from .scheduler_classes import SchedulerClass
from .schedules import beta_sigmas, exponential_sigmas, karras_sigmas

__all__ = ["flow_level", "flow_times", "shifted_by", "solver_times"]

# What stands for tau = 1, where sigma = tau/(1-tau) is infinite: off by less than 1e-12.
_LARGEST_SIGMA = 2.0**40
# UniPC's first time is this much below 1.
_BELOW_ONE = 1e-6


def flow_level(tau: float) -> float:
    """The noise level of a time: sigma in x0 + sigma*eps, which is the flow's latent/(1 - tau)."""
    return min(tau / max(1 - tau, 1e-300), _LARGEST_SIGMA)


def shifted_by(
    mu: float | None, settings: Mapping[str, Any], rules: SchedulerClass
) -> dict[str, Any]:
    """The settings with the shift that `mu` stands for (Esser et al. 2024, equation 23).

    Raises:
        InvalidRequestError: `mu` is given and means nothing to the class, or is needed.
    """
    is_dynamic, kind = settings.get("use_dynamic_shifting"), settings.get("time_shift_type")
    key = "shift" if rules.family == "flow" else "flow_shift"
    optional = rules.sampler not in ("flow_euler", "unipc")
    if mu is None:
        if is_dynamic and not optional and settings.get("use_flow_sigmas", True):
            raise InvalidRequestError(
                "mu: None, allowed are numbers with use_dynamic_shifting.", param="mu"
            )
        return dict(settings)
    if not is_dynamic or (kind != "exponential" and optional):
        refuse("mu", mu, "is None without use_dynamic_shifting (of time_shift_type exponential)")
    shift = (
        exp(min(check_number("mu", mu), 50.0)) if kind == "exponential" else check_number("mu", mu)
    )
    if shift <= 0.0:
        refuse("mu", mu, "are numbers > 0 with time_shift_type linear")
    return {**settings, key: shift}


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
