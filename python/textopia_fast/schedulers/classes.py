"""The scheduler classes of diffusers: their keys and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from types import MappingProxyType
from typing import Any, NamedTuple

__all__ = ["CLASSES", "CURVES", "THRESHOLD", "SchedulerClass"]


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


THRESHOLD: dict[str, Any] = {
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
CURVES: dict[str, Any] = {
    "use_karras_sigmas": False,
    "use_exponential_sigmas": False,
    "use_beta_sigmas": False,
}
_KDPM2: dict[str, Any] = {
    **_TABLE,
    **CURVES,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "timestep_spacing": "linspace",
}
_FLOW: dict[str, Any] = {
    "use_flow_sigmas": False,
    "flow_shift": 1.0,
    "use_dynamic_shifting": False,
    "time_shift_type": "exponential",
}
_DPM_SOLVER: dict[str, Any] = {
    **_TABLE,
    **CURVES,
    **_FLOW,
    "solver_order": 2,
    **THRESHOLD,
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "final_sigmas_type": "zero",
    "lambda_min_clipped": -inf,
    "variance_type": None,
}
_CLIP: dict[str, Any] = {"clip_sample": True, "clip_sample_range": 1.0, **THRESHOLD}
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
_FLOW_MATCH: dict[str, Any] = {
    **CURVES,
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "use_dynamic_shifting": False,
    "time_shift_type": "exponential",
    "invert_sigmas": False,
    "shift_terminal": None,
}
_IS_FLOW = {"prediction_type": "flow"}
_EDM: dict[str, Any] = {
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "sigma_data": 0.5,
    "sigma_schedule": "karras",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "rho": 7.0,
    "final_sigmas_type": "zero",
}

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
            **CURVES,
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
            **CURVES,
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "clip_sample": False,
            "clip_sample_range": 1.0,
            "timestep_spacing": "linspace",
        },
        _NO_CLIP,
    ),
    "LMSDiscreteScheduler": SchedulerClass(
        "lms", "euler", {**_TABLE, **CURVES, "timestep_spacing": "linspace"}, {}
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
            **CURVES,
            **_FLOW,
            "shift_terminal": None,
            "solver_order": 2,
            **THRESHOLD,
            "predict_x0": True,
            "solver_type": "bh2",
            "lower_order_final": True,
            "disable_corrector": [],
            "solver_p": None,
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
            **CURVES,
            **_FLOW,
            "solver_order": 2,
            **THRESHOLD,
            "algorithm_type": "deis",
            "solver_type": "logrho",
            "lower_order_final": True,
            "timestep_spacing": "linspace",
        },
        {},
        {"final_sigmas_type": "sigma_min"},
    ),
    "SASolverScheduler": SchedulerClass(
        "sa_solver",
        "dpm",
        {
            **_TABLE,
            **CURVES,
            "predictor_order": 2,
            "corrector_order": 2,
            "tau_func": None,
            **THRESHOLD,
            "algorithm_type": "data_prediction",
            "lower_order_final": True,
            "use_flow_sigmas": False,
            "flow_shift": 1.0,
            "lambda_min_clipped": -inf,
            "variance_type": None,
            "timestep_spacing": "linspace",
        },
        {},
        {"final_sigmas_type": "sigma_min"},
    ),
    "DPMSolverSDEScheduler": SchedulerClass(
        "dpmpp_sde", "euler", {**_KDPM2, "noise_sampler_seed": None}, {}
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
        "flow_euler", "flow", {**_FLOW_MATCH, "stochastic_sampling": False}, {}, _IS_FLOW
    ),
    "FlowMatchHeunDiscreteScheduler": SchedulerClass(
        "flow_heun", "flow", {"num_train_timesteps": 1000, "shift": 1.0}, {}, _IS_FLOW
    ),
    "FlowMatchLCMScheduler": SchedulerClass(
        "flow_euler", "flow", {**_FLOW_MATCH, "scale_factors": None}, {}, _IS_FLOW
    ),
    "EDMEulerScheduler": SchedulerClass("euler", "edm", _EDM, {}),
    "EDMDPMSolverMultistepScheduler": SchedulerClass(
        "dpmpp_2m",
        "edm",
        {
            **_EDM,
            "solver_order": 2,
            **THRESHOLD,
            "algorithm_type": "dpmsolver++",
            "solver_type": "midpoint",
            "lower_order_final": True,
            "euler_at_final": False,
        },
        {},
    ),
    "IPNDMScheduler": SchedulerClass(
        "ipndm",
        "ipndm",
        {"num_train_timesteps": 1000, "trained_betas": None},
        {},
        {"prediction_type": "v_prediction"},
    ),
    "ScoreSdeVeScheduler": SchedulerClass(
        "predictor_corrector",
        "ve",
        {
            "num_train_timesteps": 2000,
            "snr": 0.15,
            "sigma_min": 0.01,
            "sigma_max": 1348.0,
            "sampling_eps": 1e-5,
            "correct_steps": 1,
        },
        {},
        {"prediction_type": "score"},
    ),
}
