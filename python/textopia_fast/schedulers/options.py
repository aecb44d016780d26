"""What a scheduler class and its settings mean for a sampler: which one, with which options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import exp, sqrt
from typing import Any

import numpy as np

from ..checks import check_number, refuse
from ..errors import InvalidRequestError
from ..schedules.levels import Schedule
from ..schedules.tables import TrainingTable
from ..tracing.trace import Sampler
from .classes import CLASSES, SchedulerClass

__all__ = [
    "OF_THE_FIRST_STEPS",
    "ROUNDS_KARRAS",
    "VP_SAMPLERS",
    "class_options",
    "class_sampler",
    "late_plms",
    "latent_scale",
    "lcm_timesteps",
    "shifted_by",
    "tcd_schedule",
    "threshold_options",
]

# These hold their latents in the variance-preserving frame, or in that of a flow.
VP_SAMPLERS = (
    "ddim",
    "ddim_cfg_pp",
    "ddpm",
    "plms",
    "pndm",
    "lcm",
    "tcd",
    "flow_euler",
    "flow_heun",
)
_DDIM = ("ddim", "ddim_cfg_pp")
# Their classes tell the network whole timesteps with Karras sigmas.
ROUNDS_KARRAS = ("dpm_2", "dpm_2_ancestral")
# Options that hold for a whole schedule and not for its tail.
OF_THE_FIRST_STEPS = ("restart", "middles", "from_pure_noise")
_DPM_MULTISTEP = ("dpmpp_2m", "dpmpp_2m_sde", "dpm_multistep")


def class_sampler(class_name: str, config: Mapping[str, Any]) -> str:
    """The sampler that a class with this config stands for."""
    if class_name == "PNDMScheduler" and config.get("skip_prk_steps"):
        return "plms"
    if class_name in ("DPMSolverMultistepScheduler", "EDMDPMSolverMultistepScheduler"):
        algorithm = config.get("algorithm_type", "dpmsolver++")
        if algorithm == "sde-dpmsolver++":
            return "dpmpp_2m_sde"
        simple = config.get("solver_order", 2) in (1, 2) and config.get("solver_type") != "heun"
        if algorithm in ("dpmsolver", "sde-dpmsolver") or not simple:
            return "dpm_multistep"
    return CLASSES[class_name].sampler


def class_options(
    rules: SchedulerClass,
    sampler: str | Sampler,
    settings: Mapping[str, Any],
    schedule: Schedule,
    eta: float,
) -> dict[str, Any]:
    """The sampler options that the class's settings stand for."""
    if rules.family in ("flow", "edm", "ipndm", "ve"):
        return _continuous(rules, sampler, settings, schedule, eta)
    clip = float(settings["clip_sample_range"]) if settings.get("clip_sample") else None
    if sampler in _DDIM:
        return {"eta": _eta(eta), "clip": clip}
    if sampler == "ddpm":
        return {"variance": settings["variance_type"], "clip": clip}
    if sampler in ("plms", "pndm"):
        return {
            "velocity": settings["prediction_type"] == "v_prediction",
            **_pndm_levels(sampler, schedule),
        }
    if sampler == "dpm_2_ancestral":
        return {"mid_apart": bool(settings.get("use_karras_sigmas"))}
    if sampler == "heun":
        return {"clip": clip}
    if sampler == "tcd":
        if not 0.0 <= eta <= 1.0:
            raise InvalidRequestError(f"eta: {eta!r}, allowed are numbers 0..1.", param="eta")
        return {"eta": float(eta)}
    if sampler == "lcm":
        return {"clip": clip, "timestep_scaling": float(settings["timestep_scaling"])}
    if sampler == "unipc":
        return _unipc(settings, schedule)
    if sampler == "sa_solver":
        return _sa_solver(settings, schedule)
    if sampler == "deis":
        few = settings["lower_order_final"] and schedule.step_count < 15
        at_end = {"lower_order_final": bool(few), "result_scale": _result_scale(settings, schedule)}
        return {"order": settings["solver_order"], **at_end}
    if "algorithm_type" in settings:
        return _dpm_solver(sampler, settings, schedule)
    return {}


def threshold_options(sampler: str | Sampler, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Dynamic thresholding where the class does it, instead of clipping."""
    integrates_x0 = (
        settings.get("predict_x0", True) and settings.get("algorithm_type") != "noise_prediction"
    )
    if not settings.get("thresholding") or sampler == "tcd" or not integrates_x0:
        return {}
    bounds = (settings["dynamic_thresholding_ratio"], settings["sample_max_value"])
    return {
        "threshold": tuple(map(float, bounds)),
        **({"clip": None} if "clip_sample" in settings else {}),
    }


def lcm_timesteps(n: int, steps: int, original: int) -> np.ndarray:
    """float64 [n]: every so many of the `original` timesteps of the distillation (LCM, TCD)."""
    original = min(original, steps)
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)) or not 1 <= n <= original:
        raise InvalidRequestError(
            f"num_inference_steps: {n!r}, allowed are integers 1..{original} "
            "(original_inference_steps).",
            param="num_inference_steps",
        )
    trained = (np.arange(1, original + 1) * (steps // original) - 1)[::-1]
    chosen = np.floor(np.linspace(0, original, n, endpoint=False)).astype(int)
    return np.asarray(trained[chosen], np.float64)


def tcd_schedule(schedule: Schedule, table: TrainingTable, eta: float) -> Schedule:
    """With the levels that TCD jumps to: whole timesteps (1 - eta)*t, rounded down."""
    if any(t != int(t) for t in schedule.timesteps):
        return schedule  # of a curve over sigma: `tcd` scales sigma itself
    following = np.array([*schedule.timesteps[1:], 0.0])
    return replace(schedule, targets=tuple(table.sigma_of(np.floor((1 - eta) * following))))


def latent_scale(is_flow: bool, sigma: float) -> float:
    """Factor from x0 + sigma*eps to the latents that a class of VP networks or of flows shows."""
    return 1.0 / (1.0 + sigma) if is_flow else 1.0 / sqrt(1.0 + sigma * sigma)


def _result_scale(settings: Mapping[str, Any], schedule: Schedule) -> float:
    """That factor at the end, where the last sigma is not 0."""
    if "sigma_data" in settings:  # of an EDM class, which shows x0 + sigma*eps
        return 1.0
    return latent_scale(bool(settings.get("use_flow_sigmas")), schedule.sigmas[-1])


def _continuous(
    rules: SchedulerClass,
    sampler: str | Sampler,
    settings: Mapping[str, Any],
    schedule: Schedule,
    eta: float,
) -> dict[str, Any]:
    """Of the classes without a training table."""
    if sampler == "flow_euler":
        always = "scale_factors" in settings  # FlowMatchLCM
        return {"stochastic": always or bool(settings.get("stochastic_sampling"))}
    if sampler in _DPM_MULTISTEP and "algorithm_type" in settings:
        return _dpm_solver(sampler, settings, schedule)
    if sampler == "ipndm":
        return {"from_pure_noise": rules.family == "ipndm"}
    if sampler == "predictor_corrector" and rules.family == "ve":
        n_steps = settings["correct_steps"]
        corrector = "langevin" if n_steps else "none"
        return {"snr": settings["snr"], "n_steps": n_steps, "corrector": corrector, "norm": "batch"}
    return {"eta": _eta(eta)} if sampler in _DDIM else {}


def _middle_of_training(timestep: float) -> float:
    """diffusers' tau where the config of SASolver has none."""
    return 1.0 if 200 <= timestep <= 800 else 0.0


def _sa_solver(settings: Mapping[str, Any], schedule: Schedule) -> dict[str, Any]:
    return {
        "predictor_order": settings["predictor_order"],
        "corrector_order": settings["corrector_order"],
        "tau": settings["tau_func"] or _middle_of_training,
        "predict_x0": settings["algorithm_type"] == "data_prediction",
        "lower_order_final": bool(settings["lower_order_final"]),
        "keep_draws": True,
        "result_scale": _result_scale(settings, schedule),
    }


def _unipc(settings: Mapping[str, Any], schedule: Schedule) -> dict[str, Any]:
    return {
        "order": settings["solver_order"],
        "solver_type": "bh1" if settings["solver_type"] == "bh1" else "bh2",
        "predict_x0": bool(settings["predict_x0"]),
        "lower_order_final": bool(settings["lower_order_final"]),
        "disable_corrector": tuple(settings["disable_corrector"]),
        "result_scale": _result_scale(settings, schedule),
    }


def _dpm_solver(
    sampler: str | Sampler, settings: Mapping[str, Any], schedule: Schedule
) -> dict[str, Any]:
    algorithm, order = settings["algorithm_type"], settings["solver_order"]
    few = settings["lower_order_final"] and schedule.step_count < 15
    at_final = bool(settings.get("euler_at_final") or few)
    heun = settings["solver_type"] == "heun"
    options: dict[str, Any] = {"order": order, "result_scale": _result_scale(settings, schedule)}
    if sampler == "dpmpp_2m":
        return {**options, "order": min(order, 2), "euler_at_final": at_final}
    options["solver_type"] = "heun" if heun else "midpoint"
    if sampler == "dpmpp_2m_sde":
        return {**options, "order": min(order, 2), "euler_at_final": at_final}
    options["predict"] = "eps" if algorithm in ("dpmsolver", "sde-dpmsolver") else "x0"
    if sampler == "dpm_multistep":
        return {
            **options,
            "noise": algorithm == "sde-dpmsolver",
            "lower_order_final": 2 if few else int(at_final),
        }
    if sampler == "dpm_singlestep":
        return {
            **options,
            "noise": algorithm == "sde-dpmsolver++",
            "lower_order_final": bool(settings["lower_order_final"]),
        }
    return {}


def _pndm_levels(sampler: str, schedule: Schedule) -> dict[str, Any]:
    """Where diffusers puts the stages of PNDM's first steps, by timesteps that are T//n apart."""
    table, told = schedule.table, schedule.timesteps
    if table is None or schedule.targets is None or len(told) < 2:
        return {}
    ratio = table.steps // len(told)
    if sampler == "plms":
        return {"restart": float(table.sigma_of([told[1] + ratio])[0])}
    half = ratio // 2
    pairs = [(told[i] - half, told[i + 1] + half) for i in range(min(3, len(told) - 1))]
    return {"middles": tuple((float(a), float(b)) for a, b in table.sigma_of(np.array(pairs)))}


def late_plms(schedule: Schedule, start: int) -> tuple[Schedule, dict[str, Any]]:
    """PLMS after `start` > 0 steps, as diffusers' class begins there: (levels, options).

    Its list of timesteps has the second one twice. What comes after `start` entries of that list
    begins with a level that was passed already, and takes the next two entries for its first step.
    """
    told, table = schedule.timesteps, schedule.table
    if table is None or schedule.targets is None:
        return schedule.tail(start), {}
    late = schedule.tail(start - 1)
    if start == 1 and late.targets is not None:
        late = replace(
            late,
            sigmas=(late.sigmas[1], *late.sigmas[1:]),
            timesteps=(late.timesteps[1], *late.timesteps[1:]),
            targets=(late.targets[1], *late.targets[1:]),
        )
    ratio = table.steps // len(told)
    return late, {"late": True, "restart": float(table.sigma_of([late.timesteps[1] + ratio])[0])}


def _eta(eta: float) -> float:
    eta = check_number("eta", eta)
    if eta < 0.0:
        refuse("eta", eta, "are numbers >= 0")
    return eta


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
