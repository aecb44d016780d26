"""The loop on a GPU with work of the host in it: noise that the host draws, and callbacks."""

from __future__ import annotations

import numpy as np
import pytest

import textopia_fast as tx
from tests.cuda.test_loop_cuda import TOLERANCE, both, denoisers
from tests.support.fake_cuda import FakeCuda
from tests.test_loop import CONFIG, contexts, program_of, random_latents
from textopia_fast.errors import InvalidRequestError
from textopia_fast.samplers import from_config, trace_plan


@pytest.fixture
def fake() -> FakeCuda:
    return FakeCuda()


@pytest.mark.parametrize("kind", ["torch", "philox"])
def test_noise_of_the_host_and_of_the_device(fake, kind):
    noise = getattr(tx.Noise, kind)([3, 4])
    program = program_of("euler_ancestral", 6)
    on_cpu, on_gpu = both(fake, program, noise=lambda: noise)
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=0, atol=TOLERANCE * np.abs(on_cpu).max())
    names = fake.names()
    first = names.index("cuLaunchKernel")
    steps = names[first : len(names) - names[::-1].index("cuLaunchKernel")]
    if kind == "philox":
        assert steps == ["cuLaunchKernel"] * 7
        return
    # Each of 5 draws is uploaded right before the step that adds it, from one of two buffers in
    # turn: the host waits for the upload before the last one, and never for a step.
    assert names.count("cuMemAllocHost_v2") == 2
    assert "cuStreamSynchronize" not in steps
    copied = ["cuMemcpyHtoDAsync_v2", "cuEventRecord", "cuLaunchKernel"]
    waited = ["cuEventSynchronize", *copied]
    assert steps == ["cuLaunchKernel", *copied * 2, *waited * 3, "cuLaunchKernel"]


def test_a_draw_that_fails_ends_the_run(fake):
    denoiser = denoisers(fake, has_condition=False)[1]
    drawn: list[int] = []

    def two_draws(draw: int, shape: tuple[int, ...]) -> np.ndarray:
        drawn.append(draw)
        if draw == 2:
            raise ZeroDivisionError("no more")
        return np.zeros(shape, np.float32)

    program = program_of("euler_ancestral", 6)
    with pytest.raises(ZeroDivisionError, match="no more"):
        tx.sample(denoiser, random_latents(1), program, noise=tx.Noise.given(two_draws))
    assert drawn == [0, 1, 2]
    assert fake.live() == {"stream": 1, "module": 1, "context": 1}


def test_a_callback_sees_and_may_change_the_latents(fake):
    seen: list[list[tuple[int, np.ndarray, np.ndarray | None]]] = [[], []]
    x = random_latents(2)
    positive, negative = contexts(2)
    results = []
    for denoiser, kept in zip(denoisers(fake), seen, strict=True):

        def on_step(step, latents, denoised, kept=kept):
            kept.append((step, latents, denoised))
            return latents * 0.5 if step == 2 else None

        results.append(
            tx.sample(
                denoiser,
                x,
                program_of("dpmpp_2m", 5),
                {"context": positive},
                {"context": negative},
                guidance=2.0,
                on_step=on_step,
                wants_denoised=True,
            )
        )
    np.testing.assert_allclose(results[1], results[0], rtol=0, atol=1e-5)
    assert [step for step, *_ in seen[1]] == [step for step, *_ in seen[0]] == list(range(5))
    for (_, *on_cpu), (_, *on_gpu) in zip(*seen, strict=True):
        for cpu_array, gpu_array in zip(on_cpu, on_gpu, strict=True):
            np.testing.assert_allclose(gpu_array, cpu_array, rtol=0, atol=1e-4)


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m"])
def test_callbacks_between_evaluations_steer_the_run(fake, sampler):
    """Latents, guidance off and on again, conditioning: what the loop on the CPU makes of them."""
    positive, negative = contexts(2)
    results: list[np.ndarray] = []
    seen: list[list[tuple[int, np.ndarray]]] = []
    for denoiser in denoisers(fake):
        looks: list[tuple[int, np.ndarray]] = []

        def steer(index: int, latents: np.ndarray, looks=looks) -> dict | None:
            looks.append((index, latents))
            changes = [None, {"guidance": 1.0}, {"latents": latents * 0.9}, {"guidance": 2.5}]
            changes.append({"cond": {"context": -positive}, "uncond": {"context": 2 * negative}})
            return changes[index] if index < len(changes) else None

        results.append(
            tx.sample(
                denoiser,
                random_latents(2),
                program_of(sampler, 8),
                {"context": positive},
                {"context": negative},
                guidance=4.0,
                on_evaluation=steer,
            )
        )
        seen.append(looks)
    np.testing.assert_allclose(results[1], results[0], rtol=0, atol=1e-5 * np.abs(results[0]).max())
    assert [index for index, _ in seen[1]] == [index for index, _ in seen[0]]
    for (_, on_cpu), (_, on_gpu) in zip(*seen, strict=True):
        np.testing.assert_allclose(on_gpu, on_cpu, rtol=0, atol=1e-5 * np.abs(on_cpu).max())
    assert fake.live() == {"stream": 1, "module": 1, "context": 1}


def test_a_callback_may_change_the_mask(fake):
    x, known, noise = (random_latents(1, seed) for seed in range(3))
    program = trace_plan(from_config(CONFIG, 6, sampler="euler"), inpaint=True)
    results = []
    for denoiser in denoisers(fake, has_condition=False):

        def steer(index: int, latents: np.ndarray) -> dict | None:
            return {"mask": np.full_like(latents, 0.25)} if index == 2 else None

        results.append(
            tx.sample(
                denoiser,
                x,
                program,
                known=known,
                mask=np.ones_like(x),
                known_noise=noise,
                on_evaluation=steer,
            )
        )
    np.testing.assert_allclose(results[1], results[0], rtol=0, atol=TOLERANCE * 20)


@pytest.mark.parametrize(
    ("change", "found"), [({"guidance": 2.0}, "negative half"), ({"latents": [1.0]}, "latents")]
)
def test_what_a_callback_may_not_change(fake, change, found):
    denoiser = denoisers(fake, has_condition=False)[1]
    with pytest.raises(InvalidRequestError, match=found):
        tx.sample(
            denoiser, random_latents(1), program_of("euler", 4), on_evaluation=lambda *_: change
        )
    assert "memory" not in fake.live()
