"""The scheduler classes of diffusers: their keys, defaults and the values supported here."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from types import MappingProxyType
from typing import Any, NamedTuple

from ..errors import UnsupportedModelError
from .tables import BETA_SCHEDULES

__all__ = ["CLASSES", "SchedulerClass", "check_supported"]


class SchedulerClass(NamedTuple):
    """One class.

    `family` groups classes with the same `set_timesteps`. `fixed` are settings that no config
    changes. `foreign_defaults` replace `defaults`
    when the class is used on the config of another one: a Stable Diffusion config that never heard
    of clip_sample does not want it.
    """

    sampler: str
    family: str
    defaults: dict[str, Any]
    foreign_defaults: dict[str, Any]
    fixed: Mapping[str, Any] = MappingProxyType({})


_THRESHOLD: dict[str, Any] = {
    "thresholding": False,
    "dynamic_thresholding_ratio": 0.995,
    "sample_max_value": 1.0,
}
_TABLE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "steps_offset": 0,
}
_CURVES: dict[str, Any] = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}
_KDPM2: dict[str, Any] = {
    **_TABLE,
    **_CURVES,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "timestep_spacing": "linspace",
}
_DPM_SOLVER: dict[str, Any] = {
    **_TABLE,
    **_CURVES,
    "solver_order": 2,
    **_THRESHOLD,
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "use_flow_sigmas": False,
    "final_sigmas_type": "zero",
    "lambda_min_clipped": -inf,
    "variance_type": None,
}
_CLIP: dict[str, Any] = {"clip_sample": True, "clip_sample_range": 1.0, **_THRESHOLD}
_LCM: dict[str, Any] = {
    **_TABLE,
    **_CLIP,
    "clip_sample": False,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "original_inference_steps": 50,
    "timestep_scaling": 10.0,
    "rescale_betas_zero_snr": False,
}
_NO_CLIP = {"clip_sample": False}

CLASSES: dict[str, SchedulerClass] = {
    "DDIMScheduler": SchedulerClass(
        "ddim",
        "ddim",
        {
            **_TABLE,
            **_CLIP,
            "set_alpha_to_one": True,
            "timestep_spacing": "leading",
            "rescale_betas_zero_snr": False,
        },
        _NO_CLIP,
    ),
    "DDPMScheduler": SchedulerClass(
        "ddpm",
        "ddpm",
        {
            **_TABLE,
            **_CLIP,
            "variance_type": "fixed_small",
            "timestep_spacing": "leading",
            "rescale_betas_zero_snr": False,
        },
        _NO_CLIP,
    ),
    "PNDMScheduler": SchedulerClass(
        "pndm",
        "ddim",
        {
            **_TABLE,
            "skip_prk_steps": False,
            "set_alpha_to_one": False,
            "timestep_spacing": "leading",
        },
        {},
    ),
    "EulerDiscreteScheduler": SchedulerClass(
        "euler",
        "euler",
        {
            **_TABLE,
            **_CURVES,
            "interpolation_type": "linear",
            "sigma_min": None,
            "sigma_max": None,
            "timestep_spacing": "linspace",
            "timestep_type": "discrete",
            "rescale_betas_zero_snr": False,
            "final_sigmas_type": "zero",
        },
        {},
    ),
    "EulerAncestralDiscreteScheduler": SchedulerClass(
        "euler_ancestral",
        "euler",
        {**_TABLE, "timestep_spacing": "linspace", "rescale_betas_zero_snr": False},
        {},
    ),
    "HeunDiscreteScheduler": SchedulerClass(
        "heun",
        "euler",
        {
            **_TABLE,
            **_CURVES,
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "clip_sample": False,
            "clip_sample_range": 1.0,
            "timestep_spacing": "linspace",
        },
        _NO_CLIP,
    ),
    "LMSDiscreteScheduler": SchedulerClass(
        "lms", "euler", {**_TABLE, **_CURVES, "timestep_spacing": "linspace"}, {}
    ),
    "KDPM2DiscreteScheduler": SchedulerClass("dpm_2", "euler", _KDPM2, {}),
    "KDPM2AncestralDiscreteScheduler": SchedulerClass("dpm_2_ancestral", "euler", _KDPM2, {}),
    "DPMSolverMultistepScheduler": SchedulerClass(
        "dpmpp_2m",
        "dpm",
        {
            **_DPM_SOLVER,
            "lower_order_final": True,
            "euler_at_final": False,
            "use_lu_lambdas": False,
            "timestep_spacing": "linspace",
            "rescale_betas_zero_snr": False,
        },
        {},
    ),
    "DPMSolverSinglestepScheduler": SchedulerClass(
        "dpm_singlestep",
        "dpm",
        {**_DPM_SOLVER, "lower_order_final": False},
        {},
        {"timestep_spacing": "linspace"},
    ),
    "UniPCMultistepScheduler": SchedulerClass(
        "unipc",
        "dpm",
        {
            **_TABLE,
            **_CURVES,
            "solver_order": 2,
            **_THRESHOLD,
            "predict_x0": True,
            "solver_type": "bh2",
            "lower_order_final": True,
            "disable_corrector": [],
            "solver_p": None,
            "use_flow_sigmas": False,
            "timestep_spacing": "linspace",
            "final_sigmas_type": "zero",
            "rescale_betas_zero_snr": False,
            "sigma_min": None,
            "sigma_max": None,
        },
        {},
    ),
    "DEISMultistepScheduler": SchedulerClass(
        "deis",
        "dpm",
        {
            **_TABLE,
            **_CURVES,
            "solver_order": 2,
            **_THRESHOLD,
            "algorithm_type": "deis",
            "solver_type": "logrho",
            "lower_order_final": True,
            "use_flow_sigmas": False,
            "timestep_spacing": "linspace",
        },
        {},
        {"final_sigmas_type": "sigma_min"},
    ),
    "LCMScheduler": SchedulerClass("lcm", "lcm", _LCM, {}, {"timestep_spacing": "lcm"}),
    "TCDScheduler": SchedulerClass(
        "tcd",
        "lcm",
        _LCM,
        {},
        {"timestep_spacing": "lcm", "final_sigmas_type": "sigma_min"},
    ),
    "FlowMatchEulerDiscreteScheduler": SchedulerClass(
        "flow_euler",
        "flow",
        {
            **_CURVES,
            "num_train_timesteps": 1000,
            "shift": 1.0,
            "use_dynamic_shifting": False,
            "invert_sigmas": False,
            "shift_terminal": None,
            "stochastic_sampling": False,
        },
        {},
        {"prediction_type": "flow"},
    ),
    "FlowMatchHeunDiscreteScheduler": SchedulerClass(
        "flow_heun",
        "flow",
        {"num_train_timesteps": 1000, "shift": 1.0},
        {},
        {"prediction_type": "flow"},
    ),
    "EDMEulerScheduler": SchedulerClass(
        "euler",
        "edm",
        {
            "sigma_min": 0.002,
            "sigma_max": 80.0,
            "sigma_data": 0.5,
            "sigma_schedule": "karras",
            "num_train_timesteps": 1000,
            "prediction_type": "epsilon",
            "rho": 7.0,
            "final_sigmas_type": "zero",
        },
        {},
        {"prediction_type": "edm"},
    ),
}

# Values that are supported, by key; first those that matter whatever sampler the caller names.
_ALWAYS: dict[str, tuple[Any, ...]] = {
    "beta_schedule": BETA_SCHEDULES,
    "timestep_spacing": ("leading", "linspace", "trailing"),
    "prediction_type": ("epsilon", "v_prediction", "sample", "original_sample"),
}
# Names of other classes' algorithms that diffusers takes for its own: see `class_options`.
_DPM_ALGORITHMS = ("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "deis")
_DPM_SOLVER_TYPES = ("midpoint", "heun", "logrho", "bh1", "bh2")
_DPM_SOLVER_VALUES: dict[str, tuple[Any, ...]] = {
    "solver_order": (1, 2, 3),
    "solver_type": _DPM_SOLVER_TYPES,
    "use_flow_sigmas": (False,),
    "final_sigmas_type": ("zero", "sigma_min"),
    "variance_type": (None,),
}
_BY_CLASS: dict[str, dict[str, tuple[Any, ...]]] = {
    "DDPMScheduler": {"variance_type": ("fixed_small", "fixed_large")},
    "EulerDiscreteScheduler": {
        "interpolation_type": ("linear",),
        "timestep_type": ("discrete", "continuous"),
        "final_sigmas_type": ("zero", "sigma_min"),
    },
    "DPMSolverMultistepScheduler": {
        **_DPM_SOLVER_VALUES,
        "algorithm_type": (*_DPM_ALGORITHMS, "sde-dpmsolver"),
    },
    "DPMSolverSinglestepScheduler": {**_DPM_SOLVER_VALUES, "algorithm_type": _DPM_ALGORITHMS},
    "UniPCMultistepScheduler": {
        "solver_order": (1, 2, 3),
        "solver_type": _DPM_SOLVER_TYPES,
        "solver_p": (None,),
        "use_flow_sigmas": (False,),
        "final_sigmas_type": ("zero", "sigma_min"),
    },
    "DEISMultistepScheduler": {
        "solver_order": (1, 2, 3),
        "algorithm_type": ("deis", "dpmsolver", "dpmsolver++"),
        "solver_type": _DPM_SOLVER_TYPES,
        "use_flow_sigmas": (False,),
    },
    "FlowMatchEulerDiscreteScheduler": {
        "use_dynamic_shifting": (False,),
        "invert_sigmas": (False,),
    },
    "EDMEulerScheduler": {
        "sigma_data": (0.5,),
        "sigma_schedule": ("karras", "exponential"),
        "prediction_type": ("epsilon",),
        "final_sigmas_type": ("zero", "sigma_min"),
    },
}
# Ranges (low, high) of numbers; both ends are allowed.
_RANGES = {
    "beta_start": (1e-12, 0.999),
    "beta_end": (1e-12, 0.999),
    "clip_sample_range": (1e-6, 1e6),
    "dynamic_thresholding_ratio": (0.0, 1.0),
    "sample_max_value": (1e-6, 1e6),
    "sigma_min": (1e-6, 1e6),
    "sigma_max": (1e-6, 1e6),
    "lambda_min_clipped": (-inf, 1e6),
    "steps_offset": (0, 1_000_000),
    "num_train_timesteps": (1, 1_000_000),
    "shift": (1e-3, 1e3),
    "shift_terminal": (0.0, 0.999),
    "rho": (1e-3, 1e3),
    "original_inference_steps": (1, 1_000_000),
    "timestep_scaling": (0.0, 1e6),
}


def check_supported(class_name: str, settings: dict[str, Any], *, strict: bool) -> None:
    """Checks the settings of a class in place.

    Not `strict` (the config belongs to another class): a value that is not supported goes back to
    the default, unless it says something of the network.

    Raises:
        UnsupportedModelError: A value is not supported.
    """
    for key, allowed in _ALWAYS.items():
        if settings.get(key, allowed[0]) not in allowed:
            _refuse(class_name, key, settings[key], allowed)
    for key, allowed in _BY_CLASS.get(class_name, {}).items():
        if settings[key] in allowed or (settings[key] is None and False in allowed):
            continue
        if strict:
            _refuse(class_name, key, settings[key], allowed)
        settings[key] = CLASSES[class_name].defaults[key]
    for key, default in CLASSES[class_name].defaults.items():
        value = settings[key]
        if isinstance(default, bool) and not isinstance(value, bool) and value is not None:
            _refuse(class_name, key, value, (True, False))
        is_unused = key in _THRESHOLD and not settings["thresholding"]
        if key in _RANGES and not (value is None and default is None) and not is_unused:
            low, high = _RANGES[key]
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and low <= value <= high):
                _refuse(class_name, key, value, (f"numbers {low:g}..{high:g}",))
    curves = [key for key in _CURVES if settings.get(key)]
    if len(curves) > 1:
        _refuse(class_name, curves[1], True, (f"False with {curves[0]}",))
    if strict and "variance_type" in settings and "algorithm_type" in settings:
        _check_dpm_solver(class_name, settings)
    for key in ("steps_offset", "original_inference_steps", "num_train_timesteps"):
        if not isinstance(settings.get(key, 0), int):
            _refuse(class_name, key, settings[key], ("integers",))
    corrector = settings.get("disable_corrector", [])
    if not (isinstance(corrector, list) and all(isinstance(i, int) for i in corrector)):
        _refuse(class_name, "disable_corrector", corrector, ("lists of integers",))


def _check_dpm_solver(class_name: str, settings: dict[str, Any]) -> None:
    algorithm = settings["algorithm_type"]
    if algorithm in ("dpmsolver", "sde-dpmsolver") and settings["final_sigmas_type"] == "zero":
        _refuse(class_name, "final_sigmas_type", "zero", (f"sigma_min with {algorithm}",))
    if algorithm.startswith("sde") and settings["solver_order"] == 3:
        # the third order of diffusers has a wrong sign here, and is not of third order
        _refuse(class_name, "solver_order", 3, (f"1, 2 with {algorithm}",))


def _refuse(class_name: str, key: str, value: Any, allowed: tuple[Any, ...]) -> None:
    raise UnsupportedModelError(
        f"scheduler_config.json: {class_name} with {key} {value!r}, supported are "
        f"{', '.join(map(str, allowed))}.",
        hint="Where the sampler is the matter, name another one.",
        component="scheduler",
    )
