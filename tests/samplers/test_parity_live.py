"""Against the diffusers that is installed: a smaller set than the recorded one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.golden.sampler_cases import SD, Case, Draws, initial_noise
from tests.samplers.helpers import numpy_network
from tests.samplers.test_parity_golden import check_trajectory
from textopia_fast.samplers import from_config, trace_plan
from textopia_fast.schedulers.classes import CLASSES
from textopia_fast.tracing.reference import run

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

# diffusers' own notices, and torch and NumPy disagree on the spelling of their array protocol.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

NEEDED_BY_THEIRS = {"LMSDiscreteScheduler": "scipy", "DPMSolverSDEScheduler": "torchsde"}
PLAIN = {**SD, "clip_sample": False, "steps_offset": 1, "skip_prk_steps": True}

THRESHOLD = {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.7}
OPEN_END = {"final_sigmas_type": "sigma_min"}
THRESHOLDING: list[tuple[str, dict[str, Any]]] = [
    ("DDIM", {}),
    ("DDIM", {"prediction_type": "v_prediction", "clip_sample": True}),
    ("DPMSolverMultistep", {}),
    ("DPMSolverMultistep", {"algorithm_type": "dpmsolver", "solver_order": 3, **OPEN_END}),
    ("DPMSolverSinglestep", {"lower_order_final": True}),
    ("UniPCMultistep", {"solver_order": 3}),
    ("UniPCMultistep", {"predict_x0": False, **OPEN_END}),
    ("DEISMultistep", {}),
]


def sample_with_diffusers(scheduler: Any, steps: int) -> np.ndarray:
    """The loop of a diffusers pipeline on the stand-in network."""
    scheduler.set_timesteps(steps)
    x = torch.from_numpy(initial_noise()) * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, t).numpy()
        output = torch.from_numpy(np.asarray(numpy_network(seen, np.float32(t)), np.float32))
        x = scheduler.step(output, t, x).prev_sample
    return x.numpy()


@pytest.mark.parametrize("steps", [3, 13, 30])
@pytest.mark.parametrize("spacing", ["leading", "linspace", "trailing"])
@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("DDIM", {}),
        ("EulerDiscrete", {}),
        ("EulerDiscrete", {"use_karras_sigmas": True}),
        ("HeunDiscrete", {}),
        ("PNDM", {"skip_prk_steps": True}),
        ("DPMSolverMultistep", {"solver_order": 3, "final_sigmas_type": "sigma_min"}),
        ("DPMSolverSinglestep", {"lower_order_final": True}),
        ("KDPM2Discrete", {}),
        ("UniPCMultistep", {}),
        ("DEISMultistep", {"solver_order": 3}),
        ("LMSDiscrete", {}),
        ("DPMSolverMultistep", {}),
        ("DPMSolverMultistep", {"use_karras_sigmas": True}),
        *((name, {**extra, **THRESHOLD}) for name, extra in THRESHOLDING),
    ],
)
def test_same_sample(name: str, extra: dict[str, Any], spacing: str, steps: int) -> None:
    if name == "LMSDiscrete":
        pytest.importorskip("scipy", reason="diffusers' LMS needs SciPy")
    config = {**PLAIN, **extra, "timestep_spacing": spacing}
    scheduler = getattr(diffusers, f"{name}Scheduler").from_config(config)
    expected = sample_with_diffusers(scheduler, steps)
    plan = from_config({**scheduler.config, "_class_name": f"{name}Scheduler"}, steps)
    program = trace_plan(plan)
    x = initial_noise().astype(np.float64) * program.initial_scale
    got = run(program, numpy_network, x, Draws())
    assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()


def test_thresholding_matters_here() -> None:
    """The quantile of the cases above stands between 1 and `sample_max_value`."""
    results = []
    for config in ({}, THRESHOLD, {**THRESHOLD, "sample_max_value": 1.0}):
        scheduler = diffusers.DDIMScheduler.from_config({**PLAIN, **config})
        results.append(sample_with_diffusers(scheduler, 5))
    for one, other in ((0, 1), (1, 2)):
        assert np.abs(results[one] - results[other]).max() > 0.01


@pytest.mark.parametrize("target", ["DDIM", "EulerDiscrete", "DPMSolverMultistep"])
def test_same_sample_on_the_config_of_another_class(target: str) -> None:
    """`X.from_config(other.config)`, the way users of diffusers swap samplers."""
    other = diffusers.PNDMScheduler.from_config({**PLAIN, "skip_prk_steps": True}).config
    scheduler = getattr(diffusers, f"{target}Scheduler").from_config(dict(other))
    if target == "DDIM":  # ours does not clip on a config that never spoke of it
        scheduler.register_to_config(clip_sample=False)
    expected = sample_with_diffusers(scheduler, 7)
    sampler = {"DDIM": "ddim", "EulerDiscrete": "euler", "DPMSolverMultistep": "dpmpp_2m"}[target]
    plan = from_config({**other, "_class_name": "PNDMScheduler"}, 7, sampler=sampler)
    x = initial_noise().astype(np.float64) * trace_plan(plan).initial_scale
    got = run(trace_plan(plan), numpy_network, x, Draws())
    assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()


@pytest.mark.parametrize("steps", [1, 8, 50])
@pytest.mark.parametrize(
    "name",
    [
        "DDIM",
        "DDPM",
        "EulerDiscrete",
        "EulerAncestralDiscrete",
        "HeunDiscrete",
        "DPMSolverMultistep",
        "PNDM",
    ],
)
def test_same_timesteps(name: str, steps: int) -> None:
    scheduler = getattr(diffusers, f"{name}Scheduler").from_config({**PLAIN})
    scheduler.set_timesteps(steps)
    plan = from_config({**PLAIN, "_class_name": f"{name}Scheduler"}, steps)
    told = trace_plan(plan).noise_levels
    np.testing.assert_allclose(told, scheduler.timesteps.numpy(), rtol=1e-6)


def test_the_reference_runs_on_torch_tensors() -> None:
    plan = from_config({**PLAIN, "_class_name": "DDIMScheduler"}, 4, sampler="predictor_corrector")
    program = trace_plan(plan)

    def on(x: Any, draw: Any, tanh: Any) -> Any:
        return run(program, lambda x, t: tanh(x) * 0.9, x * program.initial_scale, draw)

    noise, draws, same_draws = initial_noise(), Draws(), Draws()
    got = on(torch.from_numpy(noise), lambda: torch.from_numpy(draws()), torch.tanh)
    expected = on(noise, same_draws, np.tanh)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-3, atol=1e-3)


# diffusers' ScoreSdeVe has no `step`: tests/interop/test_score_sde.py has it.
LONG = [(name, 50) for name in CLASSES if name != "ScoreSdeVeScheduler"]
LONGER = ("DDIM", "EulerAncestralDiscrete", "DPMSolverMultistep", "UniPCMultistep", "EDMEuler")


@pytest.mark.parametrize(("name", "steps"), LONG + [(f"{name}Scheduler", 1000) for name in LONGER])
def test_many_steps(name: str, steps: int) -> None:
    from tests.golden.make_sampler_goldens import run_diffusers

    if name in NEEDED_BY_THEIRS:
        pytest.importorskip(NEEDED_BY_THEIRS[name], reason=f"diffusers' {name} needs it")
    config = {**SD, "clip_sample": False, "skip_prk_steps": True}
    if steps > 500:  # of a thousand others diffusers' solvers would get two at the same level
        config["timestep_spacing"] = "trailing"
    known = {key: value for key, value in config.items() if key in CLASSES[name].defaults}
    eta = {"eta": 0.3} if name == "TCDScheduler" else {}
    expected = run_diffusers(Case(name, known, steps, eta))
    check_trajectory(from_config({"_class_name": name, **known}, steps, **eta), expected)
