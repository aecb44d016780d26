"""Classes without a training table, and DPMSolverSDE, against the diffusers that is installed."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import pytest

from tests.golden.sampler_cases import SD, Draws, initial_noise
from tests.interop.loops import assert_same, pair, run
from textopia_fast import errors
from textopia_fast.interop import diffusers as ours
from textopia_fast.schedulers.continuous import CONTINUOUS

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("diffusers")

# diffusers' own notices, and torch and NumPy disagree on the spelling of their array protocol.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

NAMES = [name for name in CONTINUOUS if name != "ScoreSdeVeScheduler"]
FLOWS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchLCMScheduler")
STOCHASTIC = {"FlowMatchEulerDiscreteScheduler": {"stochastic_sampling": True}}


@pytest.mark.parametrize("name", NAMES)
def test_defaults_and_members_are_those_of_diffusers(name: str) -> None:
    mine, reference = pair(name, {})
    skip = ("_use_default_values", "_class_name")
    expected = {k: v for k, v in reference.config.items() if k not in skip}
    assert {k: mine.config[k] for k in expected} == expected
    assert mine.order == reference.order
    assert len(mine) == len(reference)
    for method in ("step", "set_timesteps"):
        a, b = (inspect.signature(getattr(s, method)).parameters for s in (mine, reference))
        wanted = {p.name: p.default for p in b.values() if p.kind is not p.VAR_KEYWORD}
        assert {name: a[name].default for name in wanted} == wanted
        assert list(a) == list(wanted)
    if hasattr(reference, "init_noise_sigma"):
        assert mine.init_noise_sigma == pytest.approx(reference.init_noise_sigma)
    assert mine.timesteps.dtype == reference.timesteps.dtype
    if name != "EDMEulerScheduler":  # which has one level more than it was trained on
        torch.testing.assert_close(mine.timesteps, reference.timesteps, rtol=1e-5, atol=1e-6)
    for scheduler in (mine, reference):
        scheduler.set_timesteps(7)
    torch.testing.assert_close(mine.timesteps, reference.timesteps, rtol=1e-5, atol=1e-6)
    if hasattr(reference, "sigmas"):
        torch.testing.assert_close(mine.sigmas, reference.sigmas, rtol=1e-5, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_one_generator_per_image(name: str) -> None:
    mine, reference = pair(name, STOCHASTIC.get(name, {}))
    generators = [[torch.Generator().manual_seed(seed) for seed in (3, 4)] for _ in range(2)]
    got, expected = run(mine, 6, generators[0]), run(reference, 6, generators[1])
    assert_same(got, expected, float(getattr(reference, "init_noise_sigma", 1.0)))
    for a, b in zip(*generators, strict=True):
        assert torch.equal(a.get_state(), b.get_state())


@pytest.mark.parametrize("name", [name for name in NAMES if name != "IPNDMScheduler"])
@pytest.mark.parametrize("step", [1, 3])
def test_start_in_the_middle(name: str, step: int) -> None:
    mine, reference = pair(name, {})
    if name == "FlowMatchHeunDiscreteScheduler":  # theirs takes one timestep, not a batch of them
        scale_noise = reference.scale_noise
        reference.scale_noise = lambda x, t, noise: scale_noise(x, t[0], noise)
    first = step * reference.order
    got, expected = run(mine, 7, first=first), run(reference, 7, first=first)
    assert_same(got, expected, float(getattr(reference, "init_noise_sigma", 1.0)))


@pytest.mark.parametrize("name", NAMES)
def test_a_second_loop_equals_the_first(name: str) -> None:
    scheduler = getattr(ours, name)()
    first = run(scheduler, 5)["latents"][-1]
    for again in (scheduler, pickle.loads(pickle.dumps(scheduler))):
        assert torch.equal(run(again, 5)["latents"][-1], first)
    half = run(scheduler, 5, dtype=torch.float16)["latents"][-1]
    # eleven bits, of the first latents where they are larger
    largest = float(first.abs().max()) + float(scheduler.init_noise_sigma) * 0.1
    if name != "FlowMatchLCMScheduler":  # which draws in half precision: other noise
        assert float((half.float() - first).abs().max()) < 2e-2 * largest


def test_thresholding() -> None:
    config = {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.7}
    mine, reference = pair("EDMDPMSolverMultistepScheduler", config)
    got, expected = run(mine, 6), run(reference, 6)
    assert_same(got, expected, float(reference.init_noise_sigma))
    plain = run(ours.EDMDPMSolverMultistepScheduler(), 6)["latents"][-1]
    assert not torch.allclose(got["latents"][-1], plain, atol=1e-2)


@pytest.mark.parametrize("name", NAMES)
def test_configs_travel_between_the_libraries(name: str, tmp_path: Any) -> None:
    settings = {"shift": 2.0} if name.startswith("Flow") else {"num_train_timesteps": 900}
    mine = getattr(ours, name)(**settings)
    mine.save_pretrained(tmp_path)
    for module in (ours, theirs):
        again = getattr(module, name).from_pretrained(tmp_path)
        assert {key: again.config[key] for key in settings} == settings
        assert_same(run(again, 4), run(mine, 4), float(mine.init_noise_sigma))


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize(
    ("config", "given"),
    [
        ({"shift": 3.0}, {"sigmas": [1.0, 0.8, 0.5, 0.2]}),
        ({"shift": 3.0}, {"sigmas": [1.0, 0.8, 0.5, 0.2], "num_inference_steps": 4}),
        ({"shift": 3.0}, {"timesteps": [900.0, 500.0, 100.0]}),
        ({"shift": 2.0}, {"sigmas": [0.9, 0.4], "timesteps": [1000.0, 300.0]}),
        ({"use_dynamic_shifting": True}, {"sigmas": [1.0, 0.7, 0.3], "mu": 0.9}),
        (
            {"use_dynamic_shifting": True, "shift_terminal": 0.1},
            {"num_inference_steps": 5, "mu": 0.9},
        ),
        ({"use_karras_sigmas": True}, {"sigmas": [0.99, 0.7, 0.3]}),
    ],
)
def test_times_of_the_caller(name: str, config: dict[str, Any], given: dict[str, Any]) -> None:
    """As the pipelines of Flux and Stable Diffusion 3 give them."""
    mine, reference = pair(name, config)
    assert_same(run(mine, given), run(reference, given))
    torch.testing.assert_close(mine.sigmas, reference.sigmas, rtol=1e-5, atol=1e-6)


def test_times_of_the_caller_on_unipc() -> None:
    config = {**SD, "use_flow_sigmas": True, "prediction_type": "flow_prediction"}
    mine, reference = pair("UniPCMultistepScheduler", {**config, "flow_shift": 3.0})
    given = {"sigmas": [1.0, 0.7, 0.3, 0.1]}
    assert_same(run(mine, given), run(reference, {"sigmas": torch.tensor(given["sigmas"]).numpy()}))
    torch.testing.assert_close(mine.sigmas, reference.sigmas, rtol=1e-5, atol=1e-6)


def test_the_shift_can_be_set() -> None:
    mine, reference = pair("FlowMatchEulerDiscreteScheduler", {})
    for scheduler in (mine, reference):
        scheduler.set_shift(4.0)
    assert mine.shift == 4.0
    assert_same(run(mine, 5), run(reference, 5))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"num_inference_steps": 3, "sigmas": [1.0, 0.5]},
        {"sigmas": [0.5, 1.0]},
        {"sigmas": [0.5, 0.5]},
        {"sigmas": [1.5, 0.5]},
        {"sigmas": [0.5, 0.0]},
        {"sigmas": [0.5, float("nan")]},
        {"sigmas": []},
        {"sigmas": [0.9, 0.5], "timesteps": [900.0]},
        {"num_inference_steps": 3, "mu": 0.5},
    ],
)
def test_times_that_do_not_fit(given: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidRequestError):
        ours.FlowMatchEulerDiscreteScheduler().set_timesteps(**given)


def test_a_dynamic_shift_needs_mu() -> None:
    scheduler = ours.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    with pytest.raises(errors.InvalidRequestError, match="mu"):
        scheduler.set_timesteps(4)
    with pytest.raises(errors.InvalidRequestError, match="mu"):
        ours.DPMSolverMultistepScheduler().set_timesteps(4, mu=0.5)


@pytest.mark.parametrize(
    "options",
    [{"s_churn": 1.0}, {"per_token_timesteps": torch.ones(2)}, {"timestep": 3}],
)
def test_steps_that_do_not_fit(options: dict[str, Any]) -> None:
    scheduler = ours.FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(4)
    x = torch.from_numpy(initial_noise())
    with pytest.raises((errors.InvalidRequestError, errors.UnsupportedParameterError)):
        scheduler.step(x, **{"timestep": scheduler.timesteps[0], "sample": x, **options})


@pytest.mark.parametrize(
    "config",
    [{}, {**SD, "use_karras_sigmas": True}, {**SD, "prediction_type": "v_prediction"}],
)
@pytest.mark.parametrize("s_noise", [1.0, 0.7])
def test_dpm_solver_sde_on_one_path(
    monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], s_noise: float
) -> None:
    pytest.importorskip("torchsde", reason="diffusers' class needs it")
    from diffusers.schedulers import scheduling_dpmsolver_sde

    from tests.golden.make_sampler_goldens import BrownianMotion

    draws = Draws()
    monkeypatch.setattr(
        "textopia_fast.interop.scheduler.randn", lambda *_: torch.from_numpy(draws())
    )
    monkeypatch.setattr(
        scheduling_dpmsolver_sde, "BrownianTreeNoiseSampler", lambda *_: BrownianMotion(Draws())
    )
    mine, reference = pair("DPMSolverSDEScheduler", config)
    got, expected = run(mine, 6, s_noise=s_noise), run(reference, 6, s_noise=s_noise)
    assert_same(got, expected, float(reference.init_noise_sigma))


def test_dpm_solver_sde_has_a_seed_of_its_own() -> None:
    def draw(seed: Any) -> Any:
        scheduler = ours.DPMSolverSDEScheduler(**SD, noise_sampler_seed=seed)
        return run(scheduler, 4)["latents"][-1]

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))
    two = draw([3, 4])
    assert two.shape == initial_noise().shape
    assert not torch.equal(two, draw([3, 5]))
    torch.testing.assert_close(two[0], draw([3, 5])[0])
