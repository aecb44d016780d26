"""Step-by-step samplers through `sample`, `Pipeline` and the command line: control and errors."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import textopia_fast as tx
from tests.support.networks import tanh_network
from textopia_fast import errors
from textopia_fast.samplers import STEP_BY_STEP, step_by_step

LEVELS = [10.0, 1.0, 0.05]
SHAPE = (2, 4, 3, 3)


@pytest.fixture(scope="module")
def denoiser() -> tx.Denoiser:
    return tx.Denoiser(tanh_network(has_condition=False), noise_input="sigma", threads=1)


@pytest.fixture(scope="module")
def pipe() -> tx.Pipeline:
    return tx.Pipeline.from_pretrained("tiny-shapes", threads=1)


def start() -> np.ndarray:
    x = 10 * np.random.default_rng(1).standard_normal(SHAPE)
    return x.astype(np.float32)


def drift(m: Any, x: Any, sigmas: Any, steps: int = 5) -> Any:
    """A sampler of a user that no program can hold: it looks at what it has."""
    for _ in range(steps):
        x0 = m.denoise(x, sigmas[0])
        x = x + 0.1 * (x0 - x) / (1.0 + abs(x).max()) + 0.01 * m.noise()
        m.step(x, denoised=x0)
    return x


def test_progress_and_callbacks(denoiser: tx.Denoiser) -> None:
    progress, shown = tx.Progress(), []
    x = start()
    given = x.copy()
    out = tx.sample(
        denoiser,
        x,
        step_by_step(drift, LEVELS),
        noise=tx.Noise.philox(1),
        progress=progress,
        on_step=lambda step, x, denoised: shown.append((step, x, denoised)),
        wants_denoised=True,
    )
    assert [step for step, _, _ in shown] == list(range(5))
    assert (progress.steps_done, progress.steps_total) == (5, 0)
    np.testing.assert_array_equal(shown[-1][1], out)
    assert shown[-1][2].shape == SHAPE
    np.testing.assert_array_equal(x, given)
    shown[-1][1][:] = 0  # a copy: nothing of the run
    assert np.abs(out).max() > 0


def test_the_same_noise_gives_the_same_sample(denoiser: tx.Denoiser) -> None:
    program = step_by_step(drift, LEVELS)
    runs = [tx.sample(denoiser, start(), program, noise=tx.Noise.torch(seed)) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).max() > 1e-3


@pytest.mark.parametrize("sampler", ["rk45", "dpm_adaptive"])
def test_a_fixed_program_over_many_steps_comes_to_the_same(
    denoiser: tx.Denoiser, sampler: str
) -> None:
    options = {"rtol": 1e-5, "atol": 1e-5}
    got = tx.sample(denoiser, start(), step_by_step(sampler, LEVELS, **options))
    fine = tx.schedules.explicit(np.geomspace(LEVELS[0], LEVELS[-1], 60))
    expected = tx.sample(denoiser, start(), denoiser.trace("probability_flow", fine))
    np.testing.assert_allclose(got, expected, atol=2e-3)


def test_cancelled_between_steps(denoiser: tx.Denoiser) -> None:
    token = tx.CancelToken()
    with pytest.raises(errors.GenerationCancelled, match="after 3 steps") as caught:
        tx.sample(
            denoiser,
            start(),
            step_by_step(drift, LEVELS, steps=1000),
            noise=tx.Noise.philox(1),
            cancel=token,
            on_step=lambda step, x, denoised: token.cancel() if step == 2 else None,
        )
    assert caught.value.details == {"stage": "denoising", "steps_done": 3}


def test_cancelled_from_another_thread(denoiser: tx.Denoiser) -> None:
    token = tx.CancelToken()
    timer = threading.Timer(0.05, token.cancel)
    timer.start()
    with pytest.raises(errors.GenerationCancelled):
        tx.sample(
            denoiser,
            start(),
            step_by_step(drift, LEVELS, steps=1_000_000),
            noise=tx.Noise.philox(1),
            cancel=token,
        )
    timer.join()


def test_deadline(denoiser: tx.Denoiser) -> None:
    program = step_by_step(drift, LEVELS, steps=1_000_000)
    with pytest.raises(errors.DeadlineExceededError) as caught:
        tx.sample(denoiser, start(), program, noise=tx.Noise.philox(1), deadline=0.05)
    assert {*caught.value.details} == {"stage", "steps_done"}
    with pytest.raises(errors.DeadlineExceededError, match="after 0 steps"):
        tx.sample(denoiser, start(), program, noise=tx.Noise.philox(1), deadline=0.0)


def test_numbers_that_are_none_name_the_step(denoiser: tx.Denoiser) -> None:
    def broken(m: Any, x: Any, sigmas: Any) -> Any:
        m.step(x)
        return m.denoise(x * np.float32(np.nan), 1.0)

    with pytest.raises(errors.NumericalError, match="at step 1") as caught:
        tx.sample(denoiser, start(), step_by_step(broken, LEVELS))
    assert caught.value.details["step"] == 1


def test_what_a_sampler_may_not_do(denoiser: tx.Denoiser) -> None:
    def shrinks(m: Any, x: Any, sigmas: Any) -> Any:
        return x[:1]

    with pytest.raises(errors.InvalidRequestError, match="final latent"):
        tx.sample(denoiser, start(), step_by_step(shrinks, LEVELS))
    with pytest.raises(errors.InvalidRequestError, match="noise stream"):
        tx.sample(denoiser, start(), step_by_step(drift, LEVELS))
    with pytest.raises(errors.InvalidRequestError, match="on_step: returned"):
        tx.sample(
            denoiser,
            start(),
            step_by_step(drift, LEVELS),
            noise=tx.Noise.philox(1),
            on_step=lambda step, x, denoised: x,
        )


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"guidance": [2.0, 3.0]}, "guidance"),
        ({"known": start()}, "known"),
        ({"mask": start()}, "mask"),
        ({"program": step_by_step("rk45", LEVELS, "v_prediction")}, "program"),
        (
            {"program": step_by_step("rk45", tx.schedules.explicit([1.0, 0.0], [9.0]))},
            "schedule",
        ),
    ],
)
def test_bad_arguments(denoiser: tx.Denoiser, arguments: dict[str, Any], param: str) -> None:
    arguments = {"program": step_by_step("rk45", LEVELS), **arguments}
    with pytest.raises(errors.InvalidRequestError) as caught:
        tx.sample(denoiser, start(), **arguments)
    assert caught.value.details["param"] == param


@pytest.mark.parametrize("name", STEP_BY_STEP)
def test_no_program_can_be_traced(name: str, denoiser: tx.Denoiser) -> None:
    for sampler in (name, STEP_BY_STEP[name].function):
        with pytest.raises(errors.InvalidRequestError, match="step by step") as caught:
            denoiser.trace(sampler, LEVELS)
        assert "step_by_step" in caught.value.hint


@pytest.mark.parametrize(
    ("sampler", "options", "param"),
    [
        ("rk54", {}, "sampler"),
        ("rk45", {"eta": 1.0}, "eta"),
        ("rk45", {"rtol": "small"}, "rtol"),
        ("dpm_adaptive", {"order": 2.5}, "order"),
    ],
)
def test_bad_options(sampler: str, options: dict[str, Any], param: str) -> None:
    with pytest.raises(errors.InvalidRequestError) as caught:
        step_by_step(sampler, LEVELS, **options)
    assert caught.value.details["param"] == param


@pytest.mark.parametrize("sampler", ["rk45", "dpm_adaptive"])
def test_pipeline(pipe: tx.Pipeline, sampler: str) -> None:
    """Near the solution of the ODE, which many small steps of a fixed method find, too."""
    asked = {"num_inference_steps": 20, "guidance_scale": 2.0, "output_type": "latent", "seed": 3}
    options = {"rtol": 1e-2, "atol": 1e-2}
    seen: list[tuple[int, int]] = []
    out = pipe(
        "a red circle on a blue background",
        sampler=sampler,
        sampler_options=options,
        progress=lambda step, total: seen.append((step, total)),
        **asked,
    )
    expected = pipe("a red circle on a blue background", sampler="probability_flow", **asked)
    assert np.abs(out.images - expected.images).max() < 0.1 * np.abs(expected.images).max()
    assert out.parameters["sampler"] == sampler
    assert [step for step, _ in seen] == list(range(1, len(seen) + 1))
    assert {total for _, total in seen} == {0}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("guidance_scale", [3.0, 4.0]),
        ("guidance_interval", (0.1, 2.0)),
        ("guidance_rescale", 0.7),
    ],
)
def test_pipeline_refuses_guidance_by_step(pipe: tx.Pipeline, option: str, value: Any) -> None:
    with pytest.raises(errors.InvalidRequestError, match="step-by-step") as caught:
        pipe("a red circle", sampler="rk45", seed=1, **{option: value})
    assert caught.value.details["param"] == option


def test_pipeline_refuses_to_inpaint_with_them(pipe: tx.Pipeline) -> None:
    picture = np.zeros((64, 64, 3), np.float32)
    with pytest.raises(errors.InvalidRequestError, match="for inpainting"):
        pipe("a red circle", image=picture, mask_image=picture[:, :, 0] + 1, sampler="rk45")


def test_the_command_line_says_how_they_run(capsys: pytest.CaptureFixture[str]) -> None:
    from textopia_fast.cli import main

    assert main(["samplers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[0] for line in lines if "step by step" in line} == {*STEP_BY_STEP}
