"""What the scheduler classes of diffusers look like from outside, beyond their configs.

Classes that are not named here have no extra arguments.
"""

from __future__ import annotations

from inspect import Parameter, Signature
from math import inf
from typing import Any

from ..samplers.scheduler_classes import CLASSES, SchedulerClass

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
_FLOW = {"flow_shift": 1.0, "use_dynamic_shifting": False, "time_shift_type": "exponential"}

# Arguments of step() between `sample` and `return_dict`.
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
    "LCMScheduler": _DRAW,
    "TCDScheduler": {"eta": 0.3, "generator": None},
}
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
    "LCMScheduler": (_LCM, True),
    "TCDScheduler": (_LCM, True),
}
# Keys that mean nothing as long as the options they belong to are off, which is all that is
# supported; kept so that a config comes back as it was.
INERT_KEYS: dict[str, dict[str, Any]] = {
    "DPMSolverMultistepScheduler": _FLOW,
    "DPMSolverSinglestepScheduler": _FLOW,
    "DEISMultistepScheduler": _FLOW,
    "UniPCMultistepScheduler": {**_FLOW, "shift_terminal": None},
    "LCMScheduler": {"set_alpha_to_one": True, "timestep_spacing": "leading"},
    "TCDScheduler": {"set_alpha_to_one": True, "timestep_spacing": "leading"},
}
# Keys of the common table that a class does not have.
_ABSENT = {"DPMSolverSinglestepScheduler": ("steps_offset",)}
# Families of classes whose latents are x0 + sigma*eps, or that over sqrt(1 + sigma^2).
_FAMILIES = ("ddim", "ddpm", "euler", "dpm", "lcm")
OFFERED: tuple[str, ...] = tuple(n for n, rules in CLASSES.items() if rules.family in _FAMILIES)
# Two network runs per step, and as many entries in `timesteps`.
TWO_RUNS = ("HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "KDPM2AncestralDiscreteScheduler")
# step() also gives pred_original_sample.
GIVES_X0 = (
    "DDIMScheduler",
    "DDPMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
    *TWO_RUNS,
)
# step() draws even where the weight of the noise is 0.
DRAWS_ALWAYS = ("EulerAncestralDiscreteScheduler",)


def class_keys(name: str, rules: SchedulerClass) -> dict[str, Any]:
    """Config keys of a class with their defaults."""
    known = {**rules.defaults, **INERT_KEYS.get(name, _NONE)}
    return {k: v for k, v in known.items() if k not in _ABSENT.get(name, ())}


# Keys of diffusers' classes that are not here; its configs carry them along.
_ELSEWHERE = """
base_image_seq_len base_shift correct_steps corrector_order disable_corrector invert_sigmas
max_image_seq_len max_shift noise_sampler_seed original_inference_steps predict_x0 predictor_order
rho sampling_eps set_alpha_to_one shift shift_terminal sigma_data sigma_schedule skip_prk_steps snr
solver_p stochastic_sampling tau_func timestep_scaling
"""
KNOWN_KEYS = frozenset(
    {
        *_ELSEWHERE.split(),
        *(key for name, rules in CLASSES.items() for key in class_keys(name, rules)),
    }
)


def step_signature(name: str) -> Signature:
    """Of `step`, without self."""
    extra = {**_STEP.get(name, _NONE), "return_dict": True}
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
