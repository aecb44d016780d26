"""ScoreSdeVe: the loop of diffusers' pipeline, step by step and as one native program."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.golden.sampler_cases import Draws, initial_noise
from textopia_fast import errors
from textopia_fast.interop import diffusers as ours
from textopia_fast.samplers import from_config, trace_plan
from textopia_fast.tracing.reference import run

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("diffusers")

# diffusers' own notices, and torch and NumPy disagree on the spelling of their array protocol.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

CONFIG = {"sigma_min": 0.02, "sigma_max": 30.0, "correct_steps": 2, "snr": 0.2}


def score(x: Any, sigma: Any) -> Any:
    """Of a wide normal distribution around 0.3."""
    return (0.3 - x) / (1.5 + sigma * sigma)


def loop(scheduler: Any, steps: int, generator: Any) -> Any:
    """As diffusers' ScoreSdeVePipeline runs it."""
    x = torch.from_numpy(initial_noise()) * scheduler.init_noise_sigma
    scheduler.set_timesteps(steps)
    scheduler.set_sigmas(steps)
    seen = []
    for t, sigma in zip(scheduler.timesteps, scheduler.sigmas, strict=True):
        for _ in range(scheduler.config.correct_steps):
            x = scheduler.step_correct(score(x, sigma), x, generator=generator).prev_sample
            seen.append(x)
        x, mean = scheduler.step_pred(score(x, sigma), t, x, generator=generator, return_dict=False)
        seen += [x, mean]
    return seen


@pytest.mark.parametrize("steps", [2, 7, 50])
def test_same_samples(steps: int) -> None:
    mine, reference = ours.ScoreSdeVeScheduler(**CONFIG), theirs.ScoreSdeVeScheduler(**CONFIG)
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    got, expected = (loop(s, steps, g) for s, g in zip((mine, reference), generators, strict=True))
    for a, b in zip(got, expected, strict=True):
        assert float((a - b).abs().max()) < 1e-4 * float(b.abs().max()) + 1e-5
    assert torch.equal(generators[0].get_state(), generators[1].get_state())


@pytest.mark.parametrize("steps", [2, 9])
def test_the_native_program_is_that_loop(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = Draws()
    monkeypatch.setattr(
        "textopia_fast.interop.score_sde.randn", lambda *_: torch.from_numpy(draws())
    )
    expected = loop(ours.ScoreSdeVeScheduler(**CONFIG), steps, None)[-1].numpy()
    plan = from_config({"_class_name": "ScoreSdeVeScheduler", **CONFIG}, steps)
    program = trace_plan(plan)
    x = initial_noise().astype(np.float64) * program.initial_scale
    got = run(program, score, x, Draws())
    assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()


def test_config_and_members() -> None:
    mine, reference = ours.ScoreSdeVeScheduler(), theirs.ScoreSdeVeScheduler()
    skip = ("_use_default_values", "_class_name")
    assert {k: v for k, v in reference.config.items() if k not in skip}.items() <= (
        mine.config.items()
    )
    assert (mine.order, len(mine)) == (reference.order, len(reference))
    assert isinstance(mine, theirs.SchedulerMixin)
    for name in ("timesteps", "sigmas", "discrete_sigmas"):
        torch.testing.assert_close(getattr(mine, name), getattr(reference, name), rtol=1e-4, atol=0)
    x, noise = torch.from_numpy(initial_noise()), torch.from_numpy(initial_noise()).roll(1)
    at = torch.tensor([3, 900])
    torch.testing.assert_close(mine.add_noise(x, noise, at), reference.add_noise(x, noise, at))
    again = ours.ScoreSdeVeScheduler.from_config(reference.config, snr=0.3)
    assert again.config.snr == 0.3


@pytest.mark.parametrize(
    "call",
    [
        lambda s, x: s.set_timesteps(0),
        lambda s, x: s.set_timesteps(5, sampling_eps=2.0),
        lambda s, x: s.set_sigmas(5, sigma_min=-1.0),
        lambda s, x: s.set_sigmas(5, sigma_min=3.0, sigma_max=2.0),
        lambda s, x: s.step_pred(x[:1], s.timesteps[0], x),
        lambda s, x: s.step_pred(x, 7.0, x),
        lambda s, x: s.step_correct(x[0], x),
    ],
)
def test_what_does_not_fit(call: Any) -> None:
    with pytest.raises(errors.InvalidRequestError):
        call(ours.ScoreSdeVeScheduler(), torch.from_numpy(initial_noise()))
    with pytest.raises(errors.UnsupportedModelError):
        ours.ScoreSdeVeScheduler(snr=0.0)
