"""The pipeline on a GPU: arrays there in and out, against the pipeline on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import textopia_fast as tx
from tests.support.dlpack import GpuArray, Taken
from tests.support.fake_cuda import FakeCuda
from textopia_fast import stages
from textopia_fast.errors import InvalidRequestError

# Random weights, five steps: float32 in another order of a sum.
TOLERANCE = 1e-5


@pytest.fixture
def fake() -> FakeCuda:
    return FakeCuda()


@pytest.fixture
def pipes(tiny_model, fake, monkeypatch) -> tuple[tx.Pipeline, tx.Pipeline]:
    on_cpu = tx.Pipeline.from_pretrained(tiny_model, threads=1, precision="fp32")
    monkeypatch.setattr(stages, "open_device", lambda device: fake.gpu())
    on_gpu = tx.Pipeline.from_pretrained(tiny_model, threads=1, device="cuda", precision="fp32")
    return on_cpu, on_gpu


def make(pipe: tx.Pipeline, **given: Any) -> Any:
    asked = {"num_inference_steps": 5, "sampler": "dpmpp_2m", "output_type": "latent"} | given
    return pipe(**asked).images


def inputs(pipe: tx.Pipeline, images: int) -> dict[str, np.ndarray]:
    shape = make(pipe, prompt=["a"] * images, seed=0, num_inference_steps=1).shape
    rng = np.random.default_rng(3)
    embeds = pipe.encode_prompt(["a cat", "a dog"])
    return {
        "latents": rng.standard_normal(shape).astype(np.float32),
        "prompt_embeds": embeds,
        "negative_prompt_embeds": embeds[:1] * np.float32(0.5),
    }


def test_latents_and_embeddings_on_the_gpu(fake, pipes):
    on_cpu, on_gpu = pipes
    given = inputs(on_cpu, 4)
    wanted = make(on_cpu, **given, num_images_per_prompt=2)
    there = {name: GpuArray(fake, values) for name, values in given.items()}
    result = make(on_gpu, **there, num_images_per_prompt=2, output_type="dlpack")
    assert isinstance(result, tx.DeviceArray)
    taken = Taken(result, max_version=(1, 0))
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(taken.values, wanted, rtol=0, atol=TOLERANCE * scale)
    taken.free()
    pictures = make(on_gpu, **there, num_images_per_prompt=2, output_type="np")
    np.testing.assert_allclose(
        pictures, make(on_cpu, **given, num_images_per_prompt=2, output_type="np"), atol=1e-3
    )


def test_latents_alone_and_a_text(fake, pipes):
    on_cpu, on_gpu = pipes
    latents = inputs(on_cpu, 1)["latents"]
    wanted = make(on_cpu, prompt="a cat", latents=latents)
    result = make(on_gpu, prompt="a cat", latents=GpuArray(fake, latents))
    assert isinstance(result, np.ndarray)  # "latent"
    np.testing.assert_allclose(result, wanted, rtol=0, atol=TOLERANCE * np.abs(wanted).max())


def test_dlpack_on_the_cpu_is_an_array_of_numpy(pipes):
    result = make(pipes[0], prompt="a cat", seed=1, output_type="dlpack")
    np.testing.assert_array_equal(np.from_dlpack(result), make(pipes[0], prompt="a cat", seed=1))


def test_callbacks_see_copies_and_may_end_the_loop(fake, pipes):
    on_cpu, on_gpu = pipes
    given = inputs(on_cpu, 2)
    results = []
    for pipe, wrap in ((on_cpu, np.asarray), (on_gpu, lambda values: GpuArray(fake, values))):

        def stop(call: Any, step: int, timestep: float, values: dict[str, Any]) -> dict:
            assert isinstance(values["prompt_embeds"], np.ndarray)
            call._interrupt = step == 2
            return {"prompt_embeds": values["prompt_embeds"] * np.float32(1.5)}

        results.append(
            make(
                pipe,
                **{name: wrap(values) for name, values in given.items()},
                output_type="dlpack",
                callback_on_step_end=stop,
                callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"],
            )
        )
    assert isinstance(results[1], tx.DeviceArray)
    scale = np.abs(results[0]).max()
    np.testing.assert_allclose(results[1].numpy(), results[0], rtol=0, atol=TOLERANCE * scale)


@pytest.mark.parametrize("name", ["latents", "prompt_embeds", "negative_prompt_embeds"])
def test_arrays_on_a_gpu_for_a_pipeline_on_the_cpu(fake, pipes, name):
    given: dict[str, Any] = inputs(pipes[0], 2)
    given[name] = GpuArray(fake, given[name])
    with pytest.raises(InvalidRequestError, match=f"{name}: an array on a GPU") as caught:
        make(pipes[0], **given)
    assert caught.value.details["param"] == name


def test_shapes_are_checked_there_too(fake, pipes):
    given: dict[str, Any] = inputs(pipes[0], 2)
    wrong = GpuArray(fake, given["latents"][:1])
    with pytest.raises(InvalidRequestError, match=r"latents: shape \(1, "):
        make(pipes[1], **given | {"latents": wrong})
    flat = GpuArray(fake, given["prompt_embeds"][0])
    with pytest.raises(InvalidRequestError, match=r"prompt_embeds: shape .* \[B, T, D\]"):
        make(pipes[1], **given | {"prompt_embeds": flat})


def test_image_to_image_wants_its_noise_on_the_cpu(fake, pipes):
    latents = inputs(pipes[0], 1)["latents"]
    side = 8 * latents.shape[-1]
    picture = np.zeros((side, side, 3), np.float32)
    with pytest.raises(InvalidRequestError, match="latents: an array on a GPU"):
        make(pipes[1], prompt="a cat", image=picture, latents=GpuArray(fake, latents))
