"""The scheduler classes against those of the diffusers that is installed, step by step."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.golden.sampler_cases import Case, diffusers_cases, initial_noise
from tests.interop.loops import PLAIN, assert_same, pair, run, torch_network
from textopia_fast import errors
from textopia_fast.interop import diffusers as ours
from textopia_fast.interop.class_facts import OFFERED
from textopia_fast.schedulers.classes import CLASSES
from textopia_fast.schedulers.continuous import CONTINUOUS

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("diffusers")

# diffusers' own notices, and torch and NumPy disagree on the spelling of their array protocol.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

# DPMSolverSDE's noise is a Brownian path of torchsde; test_continuous.py has the others.
APART = ("DPMSolverSDEScheduler", *CONTINUOUS)
TABLED = [name for name in ours.SCHEDULERS if name not in APART]
CASES = [
    case
    for case in diffusers_cases()
    if case.source in ours.SCHEDULERS and case.source != "DPMSolverSDEScheduler"
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_every_case(case: Case) -> None:
    mine, reference = pair(case.source, dict(case.config))
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    got = run(mine, case.steps, generators[0], **case.options)
    expected = run(reference, case.steps, generators[1], **case.options)
    assert_same(got, expected, float(getattr(reference, "init_noise_sigma", 1.0)))
    assert torch.equal(generators[0].get_state(), generators[1].get_state())


CONFIGS: list[dict[str, Any]] = [
    {},
    {"timestep_spacing": "trailing"},
    {"timestep_spacing": "leading", "prediction_type": "v_prediction"},
    {"use_karras_sigmas": True},
    {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.7},
]


def fitting(name: str) -> list[dict[str, Any]]:
    return [{**PLAIN, **c} for c in CONFIGS if set(c) <= set(CLASSES[name].defaults)]


EACH = [(name, config) for name in TABLED for config in fitting(name)]
EACH_IDS = [f"{name}-{i}" for i, (name, _) in enumerate(EACH)]


@pytest.mark.parametrize(("name", "config"), EACH, ids=EACH_IDS)
def test_one_generator_per_image(name: str, config: dict[str, Any]) -> None:
    def generators() -> list[Any]:
        return [torch.Generator().manual_seed(seed) for seed in (3, 4)]

    mine, reference = pair(name, config)
    options = {"eta": 0.7} if name == "DDIMScheduler" else {}
    got, expected = (
        run(mine, 6, generators(), **options),
        run(reference, 6, generators(), **options),
    )
    assert_same(got, expected, float(reference.init_noise_sigma))


# From the middle, diffusers' LMS weighs slopes that it does not have and drops their share.
MIDDLE = [(name, config) for name, config in EACH if name != "LMSDiscreteScheduler"]


@pytest.mark.parametrize(("name", "config"), MIDDLE)
@pytest.mark.parametrize("step", [1, 4])
def test_start_in_the_middle(name: str, config: dict[str, Any], step: int) -> None:
    """Image-to-image: the first latents come from add_noise, multistep methods start anew."""
    if name == "PNDMScheduler" or (name == "DPMSolverSinglestepScheduler" and step % 2):
        # diffusers then runs PNDM's starting step one timestep late, and a singlestep solver from
        # the middle of a step; here those starts are refused.
        with pytest.raises(errors.InvalidRequestError):
            run(getattr(ours, name).from_config(config), 9, first=step)
        return
    mine, reference = pair(name, config)
    first = step * reference.order
    got, expected = run(mine, 9, first=first), run(reference, 9, first=first)
    assert_same(got, expected)


@pytest.mark.parametrize("name", TABLED)
def test_half_precision_goes_in_and_out(name: str) -> None:
    mine, reference = pair(name, PLAIN)
    got, expected = run(mine, 4, dtype=torch.float16), run(reference, 4, dtype=torch.float16)
    a, b = got["latents"][-1].float(), expected["latents"][-1].float()
    # Their VP classes compute in float16 throughout: eleven bits, over four steps.
    assert float((a - b).abs().max()) < 2e-2 * float(b.abs().max())


@pytest.mark.parametrize("name", TABLED)
def test_defaults_and_members_are_those_of_diffusers(name: str) -> None:
    mine, reference = pair(name, {})
    skip = ("_use_default_values", "_class_name")
    expected = {k: v for k, v in reference.config.items() if k not in skip}
    assert {k: mine.config[k] for k in expected} == expected
    assert mine.order == reference.order
    assert mine.num_inference_steps is None
    assert (mine.step_index, mine.begin_index) == (None, None)
    assert len(mine) == len(reference) == 1000
    torch.testing.assert_close(
        torch.as_tensor(mine.init_noise_sigma, dtype=torch.float32),
        torch.as_tensor(reference.init_noise_sigma, dtype=torch.float32),
        rtol=1e-4,
        atol=0,
    )
    torch.testing.assert_close(mine.alphas_cumprod, reference.alphas_cumprod, rtol=1e-4, atol=0)
    for method in ("step", "set_timesteps"):
        a, b = (inspect.signature(getattr(s, method)).parameters for s in (mine, reference))
        wanted = {p.name: p.default for p in b.values() if p.kind is not p.VAR_KEYWORD}
        assert {name: a[name].default for name in wanted} == wanted
    assert set(mine.compatibles) == {getattr(ours, n) for n in OFFERED}
    assert isinstance(mine, theirs.SchedulerMixin)
    assert isinstance(mine, theirs.ConfigMixin)


@pytest.mark.parametrize("name", TABLED)
def test_add_noise(name: str) -> None:
    mine, reference = pair(name, PLAIN)
    clean, noise = torch.from_numpy(initial_noise()), torch.from_numpy(initial_noise()).roll(1)
    # Before set_timesteps, diffusers' DPM-Solvers hold their sigmas in the other order.
    for steps in (7,) if CLASSES[name].family == "dpm" else (None, 7):
        if steps:
            mine.set_timesteps(steps)
            reference.set_timesteps(steps)
        at = torch.stack([mine.timesteps[0], mine.timesteps[3]])
        a, b = (s.add_noise(clean, noise, at) for s in (mine, reference))
        torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", ["DDIMScheduler", "DDPMScheduler"])
def test_velocity(name: str) -> None:
    mine, reference = pair(name, PLAIN)
    x, noise = torch.from_numpy(initial_noise()), torch.from_numpy(initial_noise()).roll(1)
    at = torch.tensor([3, 998])
    torch.testing.assert_close(
        mine.get_velocity(x, noise, at), reference.get_velocity(x, noise, at), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", TABLED)
def test_configs_travel_between_the_libraries(name: str, tmp_path: Any) -> None:
    base = theirs.PNDMScheduler.from_config({**PLAIN, "skip_prk_steps": True})
    mine = getattr(ours, name).from_config(base.config)
    _, reference = pair(name, base.config)
    for key, value in reference.config.items():
        if key != "_use_default_values":
            assert mine.config[key] == value, key
    back = theirs.PNDMScheduler.from_config(mine.config)
    assert back.config.skip_prk_steps is True
    assert_same(run(mine, 5), run(reference, 5), float(reference.init_noise_sigma))
    mine.save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "scheduler_config.json").read_text())
    assert stored["_class_name"] == name
    again = getattr(ours, name).from_pretrained(tmp_path.parent, subfolder=tmp_path.name)
    assert_same(run(again, 5), run(mine, 5))
    assert getattr(theirs, name).from_pretrained(tmp_path).config.beta_end == PLAIN["beta_end"]


@pytest.mark.parametrize(
    "name",
    [
        "EulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "DDPMScheduler",
        "DPMSolverMultistepScheduler",
    ],
)
def test_timesteps_of_the_caller(name: str) -> None:
    mine, reference = pair(name, PLAIN)
    given = {"timesteps": [981, 700, 444, 20]}
    assert_same(run(mine, given), run(reference, given), float(reference.init_noise_sigma))
    assert mine.num_inference_steps == 4


def test_sigmas_of_the_caller() -> None:
    mine, reference = pair("EulerDiscreteScheduler", PLAIN)
    given = {"sigmas": [14.0, 3.0, 0.5, 0.0]}
    assert_same(run(mine, given), run(reference, given), 14.0)
    torch.testing.assert_close(mine.sigmas, reference.sigmas)


def test_noise_of_the_caller_and_another_eta_in_each_step() -> None:
    mine, reference = pair("DDIMScheduler", PLAIN)
    noise = torch.from_numpy(initial_noise())
    x = y = noise
    for scheduler in (mine, reference):
        scheduler.set_timesteps(5)
    for t, eta in zip(mine.timesteps, (0.0, 0.3, 1.0, 0.0, 0.5), strict=True):
        given = {"eta": eta, "variance_noise": noise.roll(int(t)) if eta else None}
        x = mine.step(torch_network(x, t), t, x, return_dict=False, **given)[0]
        y = reference.step(torch_network(y, t), t, y, return_dict=False, **given)[0]
    torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", TABLED)
def test_sixteen_threads_with_schedulers_of_one_config(name: str) -> None:
    base = getattr(ours, name).from_config(PLAIN)
    plan = [(seed, 3 + seed % 5) for seed in range(16)]

    def one(seed_and_steps: tuple[int, int]) -> Any:
        seed, steps = seed_and_steps
        scheduler = type(base).from_config(base.config)
        return run(scheduler, steps, torch.Generator().manual_seed(seed))["latents"][-1]

    serial = [one(entry) for entry in plan]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(one, plan))
    assert all(torch.equal(a, b) for a, b in zip(serial, together, strict=True))


@pytest.mark.parametrize("name", TABLED)
def test_a_second_loop_equals_the_first(name: str) -> None:
    scheduler = getattr(ours, name).from_config(PLAIN)
    first = run(scheduler, 5)["latents"][-1]
    for again in (scheduler, copy.deepcopy(scheduler), pickle.loads(pickle.dumps(scheduler))):
        assert torch.equal(run(again, 5)["latents"][-1], first)
