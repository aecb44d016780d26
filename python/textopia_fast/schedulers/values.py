"""The values that the settings of a scheduler class may have here."""

from __future__ import annotations

from math import inf
from typing import Any

from ..errors import UnsupportedModelError
from ..schedules.tables import BETA_SCHEDULES
from .classes import CLASSES, CURVES, THRESHOLD

__all__ = ["check_supported"]

# Values that are supported, by key; first those that matter whatever sampler the caller names.
_ALWAYS: dict[str, tuple[Any, ...]] = {
    "beta_schedule": BETA_SCHEDULES,
    "timestep_spacing": ("leading", "linspace", "trailing"),
    "prediction_type": ("epsilon", "v_prediction", "sample", "original_sample", "flow_prediction"),
    "time_shift_type": ("exponential", "linear"),
}
# Names of other classes' algorithms that diffusers takes for its own: see `class_options`.
_DPM_ALGORITHMS = ("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "deis")
_DPM_SOLVER_TYPES = ("midpoint", "heun", "logrho", "bh1", "bh2")
_DPM_SOLVER_VALUES: dict[str, tuple[Any, ...]] = {
    "solver_order": (1, 2, 3),
    "solver_type": _DPM_SOLVER_TYPES,
    "final_sigmas_type": ("zero", "sigma_min"),
    "variance_type": (None,),
}
_EDM_VALUES: dict[str, tuple[Any, ...]] = {
    "sigma_data": (0.5, 1.0),
    "sigma_schedule": ("karras", "exponential"),
    "prediction_type": ("epsilon", "v_prediction"),
    "final_sigmas_type": ("zero", "sigma_min"),
}
_BY_CLASS: dict[str, dict[str, tuple[Any, ...]]] = {
    "DDPMScheduler": {"variance_type": ("fixed_small", "fixed_large")},
    "EulerDiscreteScheduler": {
        "interpolation_type": ("linear", "log_linear"),
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
        "final_sigmas_type": ("zero", "sigma_min"),
    },
    "DEISMultistepScheduler": {
        "solver_order": (1, 2, 3),
        "algorithm_type": ("deis", "dpmsolver", "dpmsolver++"),
        "solver_type": _DPM_SOLVER_TYPES,
    },
    "SASolverScheduler": {
        "predictor_order": (1, 2, 3, 4),
        "corrector_order": (1, 2, 3, 4),
        "algorithm_type": ("data_prediction", "noise_prediction"),
        "variance_type": (None,),
    },
    "DPMSolverSDEScheduler": {"prediction_type": ("epsilon", "v_prediction")},
    "FlowMatchEulerDiscreteScheduler": {"invert_sigmas": (False,)},
    "FlowMatchLCMScheduler": {"invert_sigmas": (False,), "scale_factors": (None,)},
    "EDMEulerScheduler": _EDM_VALUES,
    "EDMDPMSolverMultistepScheduler": {
        **_EDM_VALUES,
        "solver_order": (1, 2, 3),
        "algorithm_type": ("dpmsolver++", "sde-dpmsolver++", "deis"),
        "solver_type": _DPM_SOLVER_TYPES,
    },
    "IPNDMScheduler": {"trained_betas": (None,)},
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
    "flow_shift": (1e-3, 1e3),
    "snr": (1e-6, 1e3),
    "sampling_eps": (1e-12, 0.5),
    "correct_steps": (0, 1000),
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
        is_unused = key in THRESHOLD and not settings["thresholding"]
        if key in _RANGES and not (value is None and default is None) and not is_unused:
            low, high = _RANGES[key]
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and low <= value <= high):
                _refuse(class_name, key, value, (f"numbers {low:g}..{high:g}",))
    smallest, largest = settings.get("sigma_min"), settings.get("sigma_max")
    if smallest is not None and largest is not None and smallest > largest:
        _refuse(class_name, "sigma_min", smallest, (f"numbers up to sigma_max = {largest}",))
    curves = [key for key in CURVES if settings.get(key)]
    if len(curves) > 1:
        _refuse(class_name, curves[1], True, (f"False with {curves[0]}",))
    _check_flow(class_name, settings, curves)
    if strict and "solver_order" in settings and "final_sigmas_type" in settings:
        _check_dpm_solver(class_name, settings)
    if "sigma_data" in settings:
        _check_edm(class_name, settings)
    for key in ("steps_offset", "original_inference_steps", "num_train_timesteps", "correct_steps"):
        if not isinstance(settings.get(key, 0), int):
            _refuse(class_name, key, settings[key], ("integers",))
    if settings.get("tau_func") is not None and not callable(settings["tau_func"]):
        _refuse(class_name, "tau_func", settings["tau_func"], ("functions and None",))
    seeds = settings.get("noise_sampler_seed")
    seeds = seeds if isinstance(seeds, list) else [0 if seeds is None else seeds]
    if not all(isinstance(seed, int) and seed >= 0 for seed in seeds):
        found = settings["noise_sampler_seed"]
        _refuse(class_name, "noise_sampler_seed", found, ("integers >= 0 and lists of them",))
    corrector = settings.get("disable_corrector", [])
    if not (isinstance(corrector, list) and all(isinstance(i, int) for i in corrector)):
        _refuse(class_name, "disable_corrector", corrector, ("lists of integers",))


def _check_flow(class_name: str, settings: dict[str, Any], curves: list[str]) -> None:
    """A flow is told of by two keys, which diffusers does not check against each other."""
    is_flow, found = bool(settings.get("use_flow_sigmas")), settings.get("prediction_type")
    if is_flow != (found == "flow_prediction"):
        allowed = ("flow_prediction with use_flow_sigmas", "epsilon", "v_prediction", "sample")
        _refuse(class_name, "prediction_type", found, allowed[:1] if is_flow else allowed)
    if is_flow and curves:
        _refuse(class_name, curves[0], True, ("False with use_flow_sigmas",))
    if settings.get("shift_terminal") and not settings.get("use_flow_sigmas", True):
        found = settings["shift_terminal"]
        _refuse(class_name, "shift_terminal", found, ("None without use_flow_sigmas",))


def _check_edm(class_name: str, settings: dict[str, Any]) -> None:
    kind = settings["prediction_type"]
    fitting = 1.0 if kind == "v_prediction" else 0.5
    if settings["sigma_data"] != fitting:
        _refuse(class_name, "sigma_data", settings["sigma_data"], (f"{fitting} with {kind}",))


def _check_dpm_solver(class_name: str, settings: dict[str, Any]) -> None:
    algorithm = settings.get("algorithm_type", "dpmsolver++")
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
