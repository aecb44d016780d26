"""What the scheduler classes of diffusers look like from outside, beyond their configs.

Classes that are not named here have no extra arguments.
"""

from __future__ import annotations

from inspect import Parameter, Signature
from math import inf
from typing import Any

from ..schedulers.classes import CLASSES, SchedulerClass

__all__ = [
    "DRAWS_ALWAYS",
    "GIVES_X0",
    "INERT_KEYS",
    "KNOWN_KEYS",
    "OFFERED",
    "TWO_RUNS",
    "class_keys",
    "set_timesteps_signature",
    "step_signature",
]

_NONE: dict[str, Any] = {}
_DRAW: dict[str, Any] = {"generator": None}
_CHURN = {"s_churn": 0.0, "s_tmin": 0.0, "s_tmax": inf, "s_noise": 1.0, "generator": None}
_IMAGE_SHIFT = {
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
}

# Arguments of step() between `sample` and `return_dict`, or around it where it is named.
_STEP: dict[str, dict[str, Any]] = {
    "DDIMScheduler": {
        "eta": 0.0,
        "use_clipped_model_output": False,
        "generator": None,
        "variance_noise": None,
    },
    "DDPMScheduler": _DRAW,
    "EulerDiscreteScheduler": _CHURN,
    "EulerAncestralDiscreteScheduler": _DRAW,
    "KDPM2AncestralDiscreteScheduler": _DRAW,
    "LMSDiscreteScheduler": {"order": 4},
    "DPMSolverMultistepScheduler": {"generator": None, "variance_noise": None},
    "DPMSolverSinglestepScheduler": _DRAW,
    "SASolverScheduler": _DRAW,
    "DPMSolverSDEScheduler": {"return_dict": True, "s_noise": 1.0},
    "FlowMatchEulerDiscreteScheduler": {**_CHURN, "per_token_timesteps": None},
    "FlowMatchHeunDiscreteScheduler": _CHURN,
    "FlowMatchLCMScheduler": _DRAW,
    "EDMEulerScheduler": {**_CHURN, "return_dict": True, "pred_original_sample": None},
    "EDMDPMSolverMultistepScheduler": _DRAW,
    "LCMScheduler": _DRAW,
    "TCDScheduler": {"eta": 0.3, "generator": None},
}
_FLOW_TIMES = {"sigmas": None, "mu": None, "timesteps": None}
_LCM = {"original_inference_steps": None, "timesteps": None, "strength": 1.0}
# Arguments of set_timesteps() after `device`, and whether num_inference_steps may be left out.
_SET_TIMESTEPS: dict[str, tuple[dict[str, Any], bool]] = {
    "DDPMScheduler": ({"timesteps": None}, True),
    "EulerDiscreteScheduler": ({"timesteps": None, "sigmas": None}, True),
    "HeunDiscreteScheduler": ({"num_train_timesteps": None, "timesteps": None}, True),
    "KDPM2DiscreteScheduler": ({"num_train_timesteps": None}, False),
    "KDPM2AncestralDiscreteScheduler": ({"num_train_timesteps": None}, False),
    "DPMSolverMultistepScheduler": ({"mu": None, "timesteps": None}, True),
    "DPMSolverSinglestepScheduler": ({"mu": None, "timesteps": None}, True),
    "DEISMultistepScheduler": ({"mu": None}, False),
    "UniPCMultistepScheduler": ({"sigmas": None, "mu": None}, True),
    "SASolverScheduler": ({}, True),
    "DPMSolverSDEScheduler": ({"num_train_timesteps": None}, False),
    "FlowMatchEulerDiscreteScheduler": (_FLOW_TIMES, True),
    "FlowMatchLCMScheduler": (_FLOW_TIMES, True),
    "EDMEulerScheduler": ({"sigmas": None}, True),
    "EDMDPMSolverMultistepScheduler": ({}, True),
    "LCMScheduler": (_LCM, True),
    "TCDScheduler": (_LCM, True),
}
# Keys that only pipelines read, or that mean nothing here; kept so that a config comes back as it
# was.
INERT_KEYS: dict[str, dict[str, Any]] = {
    "FlowMatchEulerDiscreteScheduler": _IMAGE_SHIFT,
    "FlowMatchLCMScheduler": {**_IMAGE_SHIFT, "upscale_mode": "bicubic"},
    "LCMScheduler": {"set_alpha_to_one": True, "timestep_spacing": "leading"},
    "TCDScheduler": {"set_alpha_to_one": True, "timestep_spacing": "leading"},
}
# Keys of the common table that a class does not have.
_ABSENT = {"DPMSolverSinglestepScheduler": ("steps_offset",)}
# The classes that make schedulers here; ScoreSdeVe, which has another loop, is in `score_sde`.
OFFERED: tuple[str, ...] = tuple(n for n, rules in CLASSES.items() if rules.family != "ve")
# Two network runs per step, and as many entries in `timesteps`.
_TWO_RUNS_AND_X0 = (
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverSDEScheduler",
)
TWO_RUNS = (*_TWO_RUNS_AND_X0, "FlowMatchHeunDiscreteScheduler")
# step() also gives pred_original_sample.
GIVES_X0 = (
    "DDIMScheduler",
    "DDPMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
    "EDMEulerScheduler",
    *_TWO_RUNS_AND_X0,
)
# step() draws even where the weight of the noise is 0.
DRAWS_ALWAYS = ("EulerAncestralDiscreteScheduler", "FlowMatchLCMScheduler")


def class_keys(name: str, rules: SchedulerClass) -> dict[str, Any]:
    """Config keys of a class with their defaults."""
    known = {**rules.defaults, **INERT_KEYS.get(name, _NONE)}
    return {k: v for k, v in known.items() if k not in _ABSENT.get(name, ())}


KNOWN_KEYS = frozenset(key for name, rules in CLASSES.items() for key in class_keys(name, rules))


def step_signature(name: str) -> Signature:
    """Of `step`, without self."""
    extra = {**_STEP.get(name, _NONE)}
    extra.setdefault("return_dict", True)
    return _signature(("model_output", "timestep", "sample"), extra)


def set_timesteps_signature(name: str) -> Signature:
    """Of `set_timesteps`, without self."""
    extra, optional = _SET_TIMESTEPS.get(name, (_NONE, False))
    rest = {"device": None, **extra}
    if optional:
        return _signature((), {"num_inference_steps": None, **rest})
    return _signature(("num_inference_steps",), rest)


def takes_schedule(name: str, kind: str) -> bool:
    """Whether a class lets its caller choose `kind`, "timesteps" or "sigmas"."""
    return name not in OFFERED or kind in set_timesteps_signature(name).parameters


def _signature(needed: tuple[str, ...], optional: dict[str, Any]) -> Signature:
    kind = Parameter.POSITIONAL_OR_KEYWORD
    return Signature(
        [
            *(Parameter(name, kind) for name in needed),
            *(Parameter(name, kind, default=value) for name, value in optional.items()),
        ]
    )
