"""The native loop against the NumPy executor of the same program, on a network that is known in
closed form."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

import textopia_fast as tx
from tests.support.networks import tanh_formula, tanh_network
from textopia_fast import _core
from textopia_fast.errors import (
    DeadlineExceededError,
    GenerationCancelled,
    InvalidRequestError,
    NumericalError,
)
from textopia_fast.samplers import from_config, trace_plan
from textopia_fast.tracing import reference

CONFIG = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "steps_offset": 1,
}
# float32 against float64 over up to 20 steps: rounding errors of 1e-7 grow with each tanh and with
# the guidance.
TOLERANCE = 2e-5


def program_of(sampler: str, steps: int = 8, **options: object) -> tx.Program:
    return trace_plan(from_config(CONFIG, steps, sampler=sampler, sampler_options=options))


def random_latents(batch: int, seed: int = 0, size: tuple[int, int] = (5, 3)) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, 4, *size)).astype(np.float32)


def contexts(batch: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(9)
    return rng.standard_normal((2, batch, 6, 4)).astype(np.float32)


def by_reference(program, x, positive=None, negative=None, guidance=1.0, noise=None):
    stream = noise.stream(len(x)) if noise is not None else None

    def network(x, t):
        if positive is None:
            return tanh_formula(x, t)
        if negative is None:
            return tanh_formula(x, t, positive)
        return tanh_formula(x, t, negative), tanh_formula(x, t, positive)

    def draw():
        return stream.draw(len(x), x[0].size).reshape(x.shape).astype(np.float64)

    return reference.run(program, network, x.astype(np.float64), draw, guidance)


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float = TOLERANCE) -> None:
    scale = np.abs(expected).max()
    assert np.abs(actual - expected).max() <= tolerance * scale


@pytest.fixture(scope="module")
def denoiser() -> tx.Denoiser:
    return tx.Denoiser(tanh_network(), threads=1)


@pytest.mark.parametrize("sampler", tx.samplers.names())
@pytest.mark.parametrize("guidance", [1.0, 7.5, 0.0, -0.5])
def test_every_sampler_equals_the_reference_executor(denoiser, sampler, guidance):
    program = program_of(sampler)
    x = random_latents(3) * np.float32(program.initial_scale)
    positive, negative = contexts(3)
    noise = tx.Noise.torch([1, 2, 3])
    actual = tx.sample(
        denoiser,
        x,
        program,
        cond={"context": positive},
        uncond={"context": negative},
        guidance=guidance,
        noise=noise,
    )
    expected = by_reference(program, x, positive, negative, guidance, noise)
    assert_close(actual, expected)


@pytest.mark.parametrize("images_per_run", [None, 1, 2])
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_how_images_share_runs_changes_nothing(images_per_run, batch):
    denoiser = tx.Denoiser(tanh_network(), images_per_run=images_per_run, threads=1)
    program = program_of("euler_ancestral", 4)
    x = random_latents(batch) * np.float32(program.initial_scale)
    positive, negative = contexts(batch)
    noise = tx.Noise.philox(5)
    actual = tx.sample(
        denoiser,
        x,
        program,
        {"context": positive},
        {"context": negative},
        guidance=3.0,
        noise=noise,
    )
    assert_close(actual, by_reference(program, x, positive, negative, 3.0, noise))


@pytest.mark.parametrize("time_shape", [(), (1,), ("steps",), ("rows",), ("batch",)])
@pytest.mark.parametrize("time_dtype", ["float32", "int64", "float16"])
def test_every_form_of_the_timestep(time_shape, time_dtype):
    denoiser = tx.Denoiser(tanh_network(time_shape=time_shape, time_dtype=time_dtype), threads=1)
    program = program_of(
        "ddim", 5
    )  # whole timesteps, which float16 and int64 hold exactly up to 2048
    x = random_latents(2)
    positive, negative = contexts(2)
    actual = tx.sample(
        denoiser, x, program, {"context": positive}, {"context": negative}, guidance=4.0
    )
    tolerance = TOLERANCE if time_dtype != "float16" else 1e-3
    assert_close(actual, by_reference(program, x, positive, negative, 4.0), tolerance)


@pytest.mark.parametrize("rows", [1, 2, 4])  # two images with guidance make four
def test_a_graph_with_a_fixed_batch(rows):
    denoiser = tx.Denoiser(tanh_network(rows=rows), threads=1)
    program = program_of("euler", 3)
    x = random_latents(2) * np.float32(program.initial_scale)
    positive, negative = contexts(2)
    actual = tx.sample(
        denoiser, x, program, {"context": positive}, {"context": negative}, guidance=4.0
    )
    assert_close(actual, by_reference(program, x, positive, negative, 4.0))


def test_a_fixed_batch_that_does_not_divide_is_refused():
    denoiser = tx.Denoiser(tanh_network(rows=4), threads=1)
    positive, negative = contexts(1)
    with pytest.raises(InvalidRequestError, match="exactly 4 rows"):
        tx.sample(
            denoiser,
            random_latents(1),
            program_of("euler", 3),
            {"context": positive},
            {"context": negative},
            guidance=4.0,
        )


def test_half_precision_graph():
    denoiser = tx.Denoiser(tanh_network(real="float16"), threads=1)
    program = program_of("dpmpp_2m", 6)
    x = random_latents(2) * np.float32(program.initial_scale)
    positive, negative = contexts(2)
    actual = tx.sample(
        denoiser, x, program, {"context": positive}, {"context": negative}, guidance=2.0
    )
    assert actual.dtype == np.float32
    # float16 has 11 bits: 5e-4 per network output, a few times that after six guided steps.
    assert_close(actual, by_reference(program, x, positive, negative, 2.0), 1e-2)


def test_guidance_per_network_run(denoiser):
    program = program_of("heun", 5)
    values = list(np.linspace(1.0, 6.0, program.denoise_count))
    x = random_latents(2) * np.float32(program.initial_scale)
    positive, negative = contexts(2)
    actual = tx.sample(
        denoiser, x, program, {"context": positive}, {"context": negative}, guidance=values
    )
    expected = by_reference(program, x, positive, negative, lambda i: values[i])
    assert_close(actual, expected)


def test_without_conditioning_and_with_another_rank():
    denoiser = tx.Denoiser(tanh_network(has_condition=False), threads=1)
    program = program_of("euler", 3)
    x = random_latents(2) * np.float32(program.initial_scale)
    assert_close(tx.sample(denoiser, x, program), by_reference(program, x))


def test_one_row_of_conditioning_serves_all_images(denoiser):
    program = program_of("euler", 3)
    x = random_latents(3) * np.float32(program.initial_scale)
    positive, _ = contexts(1)
    actual = tx.sample(denoiser, x, program, {"context": positive})
    assert_close(actual, by_reference(program, x, np.repeat(positive, 3, axis=0)))


@pytest.mark.parametrize("isa", _core.supported_isas())
def test_every_instruction_set_gives_the_same_bits(denoiser, isa):
    program = program_of("dpmpp_2m", 5)
    x = random_latents(2) * np.float32(program.initial_scale)
    positive, negative = contexts(2)

    def run(name):
        return _core.sample(
            denoiser._native,
            tx.sampling._native(program, 0.0),
            x,
            cond={"context": positive},
            uncond={"context": negative},
            guidance=[5.0],
            isa=name,
        )

    np.testing.assert_array_equal(run(isa), run("scalar"))


def test_torch_tensors_go_in_and_out(denoiser):
    torch = pytest.importorskip("torch")
    program = program_of("euler", 3)
    x = random_latents(1)
    positive, _ = contexts(1)
    actual = tx.sample(
        denoiser, torch.from_numpy(x), program, {"context": torch.from_numpy(positive)}
    )
    assert isinstance(actual, torch.Tensor)
    np.testing.assert_array_equal(
        actual.numpy(), tx.sample(denoiser, x, program, {"context": positive})
    )


def test_the_start_is_not_changed(denoiser):
    x = random_latents(1)
    before = x.copy()
    tx.sample(denoiser, x, program_of("euler", 2), {"context": contexts(1)[0]})
    np.testing.assert_array_equal(x, before)


def test_callback_sees_steps_and_may_replace_the_latents(denoiser):
    program = program_of("euler", 4)
    x = random_latents(1) * np.float32(program.initial_scale)
    cond = {"context": contexts(1)[0]}
    seen = []

    def watch(step, latents, denoised):
        seen.append((step, latents.copy(), denoised.copy()))

    plain = tx.sample(denoiser, x, program, cond)
    watched = tx.sample(denoiser, x, program, cond, on_step=watch, wants_denoised=True)
    np.testing.assert_array_equal(plain, watched)
    assert [step for step, _, _ in seen] == [0, 1, 2, 3]
    np.testing.assert_array_equal(seen[-1][1], plain)
    # The last step of Euler ends on the denoised estimate.
    np.testing.assert_allclose(seen[-1][2], plain, rtol=1e-4, atol=1e-5)

    zeroed = tx.sample(denoiser, x, program, cond, on_step=lambda i, x, d: np.zeros_like(x))
    np.testing.assert_array_equal(zeroed, np.zeros_like(x))


def test_an_exception_of_the_callback_ends_the_run(denoiser):
    def fail(step, latents, denoised):
        raise KeyError("from the callback")

    with pytest.raises(KeyError, match="from the callback"):
        tx.sample(
            denoiser,
            random_latents(1),
            program_of("euler", 3),
            {"context": contexts(1)[0]},
            on_step=fail,
        )


def test_cancel_from_another_thread(denoiser):
    program = program_of("euler", 1000)
    token, progress = tx.CancelToken(), tx.Progress()
    x = random_latents(2, size=(64, 64))

    def cancel_soon():
        while progress.steps_done < 5:
            time.sleep(1e-4)
        token.cancel()

    thread = threading.Thread(target=cancel_soon)
    thread.start()
    with pytest.raises(GenerationCancelled) as caught:
        tx.sample(
            denoiser, x, program, {"context": contexts(2)[0]}, cancel=token, progress=progress
        )
    thread.join()
    assert 5 <= caught.value.details["steps_done"] < 1000
    assert progress.steps_total == 1000
    with pytest.raises(GenerationCancelled):  # a token stays cancelled
        tx.sample(denoiser, x, program, {"context": contexts(2)[0]}, cancel=token)


def test_deadline(denoiser):
    with pytest.raises(DeadlineExceededError) as caught:
        tx.sample(
            denoiser,
            random_latents(2, size=(64, 64)),
            program_of("euler", 1000),
            {"context": contexts(2)[0]},
            deadline=0.005,
        )
    assert caught.value.details["steps_done"] < 1000


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_an_error(denoiser, bad):
    x = random_latents(1)
    x[0, 0, 0, 0] = bad
    with pytest.raises(NumericalError) as caught:
        tx.sample(denoiser, x, program_of("euler", 3), {"context": contexts(1)[0]})
    assert caught.value.details["stage"] == "denoising"
    assert caught.value.details["step"] == 0


def test_requests_that_do_not_fit(denoiser):
    program = program_of("euler", 3)
    x, (positive, negative) = random_latents(2), contexts(2)
    good = {"context": positive}

    def refused(match, *args, **kwargs):
        with pytest.raises(InvalidRequestError, match=match):
            tx.sample(denoiser, *args, **kwargs)

    refused("missing from the conditioning", x, program)
    refused("no conditioning input", x, program, {**good, "other": positive})
    refused("negative half", x, program, good, guidance=2.0)
    refused("positive half", x, program, {"context": contexts(3)[0]})
    refused("rows of shape", x, program, {"context": positive[..., :3]})
    refused("rows of shape", x[:, :3], program, good)
    refused("every size must be positive", x[:0], program, good)
    refused("one value or one per network evaluation", x, program, good, guidance=[1.0, 1.0])
    refused("guidance: got nan, allowed", x, program, good, guidance=float("nan"))
    refused("guidance: got inf", x, program, good, {"context": negative}, guidance=float("inf"))
    refused("deadline: got nan", x, program, good, deadline=float("nan"))
    refused("no noise stream", x, program_of("euler_ancestral", 3), good)
    refused(
        "3 seeds for 2 images",
        x,
        program_of("euler_ancestral", 3),
        good,
        noise=tx.Noise.torch([1, 2, 3]),
    )
    refused("real numbers", np.array([["a"]]), program, good)


def test_noise_that_runs_out(denoiser):
    program = program_of("euler_ancestral", 4)
    x = random_latents(1)
    noise = tx.Noise.given(random_latents(2, seed=3).reshape(2, 1, 4, 5, 3))
    with pytest.raises(InvalidRequestError, match="2"):
        tx.sample(denoiser, x, program, {"context": contexts(1)[0]}, noise=noise)


def test_one_stream_serves_one_run_at_a_time(denoiser):
    program = program_of("euler_ancestral", 50)
    stream = tx.Noise.torch([1]).stream(1)
    started = threading.Event()
    failures = []

    def other():
        started.wait()
        try:
            stream.draw(1, 60)
        except InvalidRequestError as error:
            failures.append(error)

    thread = threading.Thread(target=other)
    thread.start()

    def watch(step, latents, denoised):
        started.set()
        thread.join()

    tx.sample(
        denoiser,
        random_latents(1),
        program,
        {"context": contexts(1)[0]},
        noise=stream,
        on_step=watch,
    )
    assert len(failures) == 1
