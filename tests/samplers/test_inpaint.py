"""Programs that blend: where the tracer puts BLEND, with which weights, and what it refuses."""

from __future__ import annotations

import pickle
from math import hypot
from typing import Any

import numpy as np
import pytest

from textopia_fast.errors import InvalidRequestError
from textopia_fast.samplers import from_config, schedules, trace, trace_plan
from textopia_fast.tracing.program import Blend, Denoise, Step
from textopia_fast.tracing.reference import run
from textopia_fast.tracing.registry import SAMPLERS

SIGMAS = (12.0, 5.0, 2.0, 0.7, 0.2, 0.0)
TABLE = schedules.TrainingTable(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
SCHEDULE = schedules.explicit(SIGMAS, table=TABLE)


def blends(program: Any) -> list[Blend]:
    return [i for i in program.instructions if type(i) is Blend]


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m"])
def test_once_per_step_at_the_next_level(sampler: str) -> None:
    program = trace(sampler, SCHEDULE, inpaint=True)
    assert [(b.known, b.noise) for b in blends(program)] == [(1.0, s) for s in SIGMAS[1:]]
    for i, instruction in enumerate(program.instructions):
        if type(instruction) is Step:
            assert program.instructions[i - 1].dst == instruction.x
            assert type(program.instructions[i - 1]) is Blend


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_in_the_frame_that_the_sampler_holds(sampler: str) -> None:
    found = blends(trace(sampler, SCHEDULE, inpaint=True))
    for blend, sigma in zip(found, SIGMAS[1:], strict=True):
        np.testing.assert_allclose(
            (blend.known, blend.noise), (1 / hypot(1, sigma), sigma / hypot(1, sigma)), rtol=1e-14
        )


def test_second_evaluations_see_the_known_part_too() -> None:
    program = trace("heun", SCHEDULE, inpaint=True)
    levels = [b.noise for b in blends(program)]
    assert levels == [5.0, 5.0, 2.0, 2.0, 0.7, 0.7, 0.2, 0.2, 0.0]


def test_half_steps_of_diffusers_class_see_whole_levels() -> None:
    config = {"_class_name": "KDPM2DiscreteScheduler", "timestep_spacing": "trailing"}
    plan = from_config(config, 4)
    sigmas = plan.schedule.sigmas
    levels = [b.noise for b in blends(trace_plan(plan, inpaint=True))]
    assert levels == [level for sigma in sigmas[1:-1] for level in (sigma, sigma)] + [0.0]
    own = [b.noise for b in blends(trace("dpm_2", SCHEDULE, inpaint=True))]
    np.testing.assert_allclose(own[:2], [(12.0 * 5.0) ** 0.5, 5.0])


def test_churn_falls_back_to_the_schedule() -> None:
    program = trace("euler", SCHEDULE, inpaint=True, s_churn=1.0)
    assert [(b.known, b.noise) for b in blends(program)] == [(1.0, s) for s in SIGMAS[1:]]


def test_a_last_level_above_zero_ends_clean() -> None:
    program = trace("euler", schedules.explicit(SIGMAS[:-1], table=TABLE), inpaint=True)
    assert blends(program)[-1][2:] == (1.0, 0.0)


def test_nothing_else_changes() -> None:
    plain, painted = (trace("dpmpp_2m", SCHEDULE, inpaint=b) for b in (False, True))
    told = [[i[2:] for i in p.instructions if type(i) is Denoise] for p in (plain, painted)]
    assert told[0] == told[1]
    assert plain.combine_count == painted.combine_count
    assert (plain.blends, painted.blends) == (False, True)
    assert plain.denoise_count == painted.denoise_count
    assert pickle.loads(pickle.dumps(painted)) == painted
    assert "BLEND" in str(painted)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_keeps_what_is_known(sampler: str) -> None:
    """With nothing to paint the result is the known latents; with all of it, what it always is."""
    options = {"eta": 0.01} if sampler == "langevin" else {}
    rng = np.random.default_rng(0)
    x, known, noise = rng.standard_normal((3, 2, 4, 3, 5))

    def result(program: Any, **given: Any) -> np.ndarray:
        fresh = np.random.default_rng(1)
        draw = lambda: fresh.standard_normal(x.shape)  # noqa: E731
        network = lambda x, t: np.tanh(x)  # noqa: E731
        return run(program, network, x * 12.0, draw, **given)

    plain = result(trace(sampler, SCHEDULE, **options))
    program = trace(sampler, SCHEDULE, inpaint=True, **options)
    keep = result(program, known=known, mask=np.zeros_like(x), known_noise=noise)
    np.testing.assert_allclose(keep, known, atol=1e-12)
    paint = result(program, known=known, mask=np.ones_like(x), known_noise=noise)
    np.testing.assert_allclose(paint, plain, atol=1e-9)


def test_of_a_plan() -> None:
    plan = from_config({"_class_name": "DDIMScheduler"}, 10).tail(6)
    program = trace_plan(plan, inpaint=True)
    assert len(blends(program)) == 4
    assert trace_plan(plan, inpaint=True) is program
    assert not trace_plan(plan).blends


def test_a_sampler_that_goes_on_from_another_latent() -> None:
    def stray(m: Any, x: Any, sigmas: Any) -> Any:
        for sigma in sigmas[:-1]:
            x = m.denoise(x, sigma)
            m.step(0.5 * x)
        return x

    with pytest.raises(InvalidRequestError, match="does not go on"):
        trace(stray, SCHEDULE, inpaint=True)
