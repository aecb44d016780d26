"""What scheduler configs and arguments are refused, and how that is said."""

from __future__ import annotations

from typing import Any

import pytest

from tests.samplers.test_scheduler_config import PNDM, SD
from textopia_fast.errors import InvalidRequestError, ModelError, UnsupportedModelError
from textopia_fast.samplers import from_config


@pytest.mark.parametrize(
    "arguments",
    [
        {"num_inference_steps": 0},
        {"num_inference_steps": 1001},
        {"num_inference_steps": 2.5},
        {"num_inference_steps": True},
        {"schedule": "cosine"},
        {"sampler": "eulr"},
        {"timesteps": []},
        {"timesteps": [1, 2]},
        {"timesteps": [5, 5]},
        {"timesteps": [1000, 5]},
        {"timesteps": [5, -1]},
        {"timesteps": ["a"]},
        {"timesteps": [10, 5], "sigmas": [1.0, 0.0]},
        {"timesteps": [10, 5], "schedule": "karras"},
        {"sigmas": [1.0]},
        {"sigmas": [1.0, 2.0, 0.0]},
        {"sigmas": [2.0, 0.0, 0.0]},
        {"sigmas": []},
        {"sigmas": [-1.0, 0.0]},
        {"sigmas": [float("nan"), 0.0]},
    ],
)
def test_refuses_arguments(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        from_config(PNDM, **{"num_inference_steps": 5, "sampler": "euler", **arguments})
    assert "param" in caught.value.details


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("DDIM", "thresholding", "yes"),
        ("DDIM", "beta_schedule", "sigmoid"),
        ("DDIM", "prediction_type", "flow_prediction"),
        ("DDIM", "timestep_spacing", "even"),
        ("DDIM", "clip_sample_range", -1),
        ("DDIM", "clip_sample", "yes"),
        ("DDPM", "variance_type", "learned_range"),
        ("EulerDiscrete", "interpolation_type", "cubic"),
        ("EulerDiscrete", "prediction_type", "flow_prediction"),
        ("EulerDiscrete", "use_beta_sigmas", "yes"),
        ("EulerDiscrete", "final_sigmas_type", "half"),
        ("EulerDiscrete", "sigma_max", "14"),
        ("EulerDiscrete", "sigma_min", 0),
        ("EulerDiscrete", "beta_start", float("nan")),
        ("EulerDiscrete", "beta_end", None),
        ("EulerDiscrete", "beta_end", 1.5),
        ("EulerDiscrete", "num_train_timesteps", "many"),
        ("EulerDiscrete", "num_train_timesteps", 10**12),
        ("EulerDiscrete", "num_train_timesteps", None),
        ("EulerDiscrete", "trained_betas", 0.1),
        ("EulerDiscrete", "trained_betas", []),
        ("EulerDiscrete", "trained_betas", ["a"]),
        ("EulerDiscrete", "trained_betas", [2.0]),
        ("EulerDiscrete", "steps_offset", 1.5),
        ("EulerDiscrete", "steps_offset", -1),
        ("EulerDiscrete", "steps_offset", 10**30),
        ("EulerDiscrete", "beta_schedule", []),
        ("EulerDiscrete", "prediction_type", {}),
        ("DPMSolverMultistep", "solver_order", 4),
        ("DPMSolverMultistep", "algorithm_type", "ddim"),
        ("DPMSolverMultistep", "algorithm_type", "dpmsolver"),
        ("DPMSolverMultistep", "algorithm_type", []),
        ("DPMSolverMultistep", "solver_type", "ralston"),
        ("DPMSolverMultistep", "use_lu_lambdas", "yes"),
        ("DPMSolverSinglestep", "algorithm_type", "sde-dpmsolver"),
        ("DPMSolverSinglestep", "algorithm_type", "dpmsolver"),
        ("DPMSolverSinglestep", "use_flow_sigmas", True),
        ("DPMSolverMultistep", "use_flow_sigmas", True),
        ("DPMSolverMultistep", "variance_type", "learned"),
        ("DPMSolverMultistep", "lambda_min_clipped", float("nan")),
        ("DPMSolverMultistep", "lambda_min_clipped", 100.0),
        ("UniPCMultistep", "solver_order", 4),
        ("UniPCMultistep", "solver_type", "ralston"),
        ("UniPCMultistep", "solver_p", {"_class_name": "DDIMScheduler"}),
        ("UniPCMultistep", "disable_corrector", 3),
        ("UniPCMultistep", "disable_corrector", ["a"]),
        ("UniPCMultistep", "predict_x0", "no"),
        ("UniPCMultistep", "use_flow_sigmas", True),
        ("DEISMultistep", "algorithm_type", "sde"),
        ("DEISMultistep", "use_flow_sigmas", True),
        ("FlowMatchEulerDiscrete", "time_shift_type", "cubic"),
        ("FlowMatchLCM", "invert_sigmas", True),
        ("FlowMatchLCM", "scale_factors", [0.5, 1.0]),
        ("SASolver", "predictor_order", 5),
        ("SASolver", "corrector_order", 0),
        ("SASolver", "algorithm_type", "dpmsolver++"),
        ("SASolver", "tau_func", 0.5),
        ("SASolver", "variance_type", "learned"),
        ("SASolver", "use_flow_sigmas", True),
        ("DPMSolverSDE", "prediction_type", "sample"),
        ("DPMSolverSDE", "noise_sampler_seed", -1),
        ("DPMSolverSDE", "noise_sampler_seed", "7"),
        ("IPNDM", "trained_betas", [0.1, 0.2]),
        ("IPNDM", "num_train_timesteps", 0),
        ("EDMEuler", "sigma_min", 100.0),
        ("EDMDPMSolverMultistep", "solver_order", 4),
        ("EDMDPMSolverMultistep", "algorithm_type", "dpmsolver"),
        ("EDMDPMSolverMultistep", "sigma_data", 1.0),
        ("EDMDPMSolverMultistep", "solver_type", "ralston"),
        ("ScoreSdeVe", "snr", 0),
        ("ScoreSdeVe", "sigma_min", 2000.0),
        ("ScoreSdeVe", "correct_steps", -1),
        ("ScoreSdeVe", "sampling_eps", 1.0),
        ("UniPCMultistep", "shift_terminal", 0.1),
        ("UniPCMultistep", "flow_shift", 0),
        ("FlowMatchEulerDiscrete", "invert_sigmas", True),
        ("FlowMatchEulerDiscrete", "shift", 0),
        ("FlowMatchEulerDiscrete", "shift_terminal", 1.0),
        ("FlowMatchEulerDiscrete", "num_train_timesteps", 2.5),
        ("FlowMatchHeunDiscrete", "shift", None),
        ("EDMEuler", "sigma_data", 1.0),
        ("EDMEuler", "sigma_schedule", "linear"),
        ("EDMEuler", "prediction_type", "v_prediction"),
        ("EDMEuler", "final_sigmas_type", "half"),
        ("EDMEuler", "rho", 0),
        ("EDMEuler", "sigma_min", None),
        ("LCM", "original_inference_steps", 0),
        ("LCM", "original_inference_steps", 2.5),
        ("LCM", "timestep_scaling", -1.0),
        ("EulerDiscrete", "trained_betas", [0.9] * 100),
    ],
)
def test_refuses_values_of_the_config(name: str, key: str, value: Any) -> None:
    config = {"_class_name": f"{name}Scheduler", key: value}
    with pytest.raises(
        UnsupportedModelError, match=r"scheduler_config\.json: .*(supported|allowed)"
    ):
        from_config(config, 5)


@pytest.mark.parametrize("name", ["", "NobodysScheduler", None, [], 7])
def test_refuses_unknown_classes(name: Any) -> None:
    with pytest.raises(UnsupportedModelError, match="supported are DDIMScheduler") as caught:
        from_config({"_class_name": name}, 5)
    assert caught.value.details["component"] == "scheduler"
    assert from_config({"_class_name": name}, 5, sampler="euler").sampler == "euler"


def test_karras_and_exponential_at_once() -> None:
    both = {"use_karras_sigmas": True, "use_exponential_sigmas": True}
    with pytest.raises(ModelError, match="use_exponential_sigmas"):
        from_config({"_class_name": "EulerDiscreteScheduler", **both}, 5)


@pytest.mark.parametrize(
    "settings",
    [
        {"algorithm_type": "sde-dpmsolver++", "solver_order": 3},
        {"algorithm_type": "sde-dpmsolver", "final_sigmas_type": "zero"},
    ],
)
def test_dpm_solver_combinations_that_diffusers_gets_wrong_or_refuses(
    settings: dict[str, Any],
) -> None:
    config = {**SD, "_class_name": "DPMSolverMultistepScheduler", **settings}
    with pytest.raises(UnsupportedModelError, match="supported are"):
        from_config(config, 20)
    assert from_config(config, 20, sampler="dpmpp_3m_sde").sampler == "dpmpp_3m_sde"
