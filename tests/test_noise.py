"""Noise that the caller brings: generators of NumPy and torch, arrays, functions."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import textopia_fast as tx
from tests.support.networks import tanh_network
from textopia_fast import _core, errors
from textopia_fast.noise_streams import draw

SIGMAS = [8.0, 4.0, 2.0, 1.0, 0.0]
SHAPE = (2, 4, 5, 3)


@pytest.fixture(scope="module")
def net() -> tx.Denoiser:
    return tx.Denoiser(tanh_network(), noise_input="sigma", threads=1)


@pytest.fixture(scope="module")
def pipe(tiny_model: Path) -> tx.Pipeline:
    return tx.Pipeline.from_pretrained(tiny_model, threads=1)


def sample(net: tx.Denoiser, noise: Any, sampler: Any = "euler_ancestral", **options: Any) -> Any:
    rng = np.random.default_rng(9)
    x = rng.standard_normal(SHAPE).astype(np.float32)
    cond = {"context": rng.standard_normal((2, 5, 4)).astype(np.float32)}
    return tx.sample(net, x, net.trace(sampler, SIGMAS), cond=cond, noise=noise, **options)


def latents(pipe: tx.Pipeline, **options: Any) -> Any:
    options = {"num_inference_steps": 4, "sampler": "euler_ancestral"} | options
    return pipe(["a", "b"], output_type="latent", **options).images


class Generator:
    """What a torch.Generator shows of itself; its state is an array, as a tensor is for us."""

    class Device:
        def __init__(self, kind: str) -> None:
            self.type = kind

    class State(np.ndarray):
        def numpy(self) -> np.ndarray:
            return self.view(np.ndarray)

    def __init__(self, device: str, *words: int) -> None:
        self.device = self.Device(device)
        self.state = np.array(words, np.uint64).view(np.uint8)

    def get_state(self) -> Any:
        return self.state.copy().view(self.State)

    def set_state(self, state: Any) -> None:
        self.state = state.numpy().copy()


# -- NumPy ------------------------------------------------------------------------------------


def test_a_random_state_draws_as_pipelines_over_numpy_do(net: tx.Denoiser) -> None:
    mine, other = np.random.RandomState(4), np.random.RandomState(4)
    got = sample(net, tx.Noise.from_generator(mine))
    draws = np.stack([other.randn(*SHAPE).astype(np.float32) for _ in range(3)])
    np.testing.assert_array_equal(got, sample(net, tx.Noise.given(draws)))
    assert mine.randn() == other.randn()


@pytest.mark.parametrize("make", [np.random.RandomState, np.random.default_rng])
def test_numpy_generators_in_a_pipeline(pipe: tx.Pipeline, make: Any) -> None:
    mine, other = make(4), make(4)
    got = latents(pipe, generator=mine)
    shape = got.shape
    draws = np.stack([other.standard_normal(shape) for _ in range(4)])
    np.testing.assert_array_equal(got, latents(pipe, noise=tx.Noise.given(draws)))
    # DDIM and other samplers without noise take the start alone.
    latents(pipe, generator=mine, sampler="euler")
    other.standard_normal(shape)
    other.standard_normal(shape)  # euler_ancestral's last step, which diffusers draws for
    assert mine.standard_normal() == other.standard_normal()


def test_a_list_of_numpy_generators_makes_each_image_alone(pipe: tx.Pipeline) -> None:
    both = latents(pipe, generator=[np.random.default_rng(seed) for seed in (1, 2)])
    alone = pipe(
        "b",
        num_inference_steps=4,
        sampler="euler_ancestral",
        generator=np.random.default_rng(2),
        output_type="latent",
    ).images
    np.testing.assert_array_equal(both[1:], alone)


# -- torch ------------------------------------------------------------------------------------


def test_cuda_generators_are_computed_here(net: tx.Denoiser) -> None:
    """Their state is a seed and an offset; a draw takes four counters of it."""
    generator = Generator("cuda", 7, 0)
    got = sample(net, tx.Noise.from_generator(generator))
    np.testing.assert_array_equal(got, sample(net, tx.Noise.cuda(7)))
    assert generator.state.view(np.uint64).tolist() == [7, 12]
    stream = tx.Noise.cuda(7).stream(2)
    for _ in range(3):
        draw(stream, SHAPE)
    again = tx.Noise.from_generator(generator).randn(SHAPE)
    np.testing.assert_array_equal(again, draw(stream, SHAPE))
    both = tx.Noise.from_generator([Generator("cuda", 7, 0), Generator("cuda", 8, 4)]).randn(SHAPE)
    stream = tx.Noise.cuda([7, 8]).stream(2)
    np.testing.assert_array_equal(both[:1], draw(stream, SHAPE)[:1])
    np.testing.assert_array_equal(both[1:], draw(stream, SHAPE)[1:])


@pytest.mark.parametrize(
    ("generator", "words"),
    [
        (Generator("mps", 1, 0), "generator: of mps, allowed is cpu or cuda"),
        ([Generator("cpu"), Generator("cuda", 1, 0)], "of cpu and cuda"),
        ([], "generator: got \\[\\], allowed are torch.Generator"),
        (7, "generator: got 7, allowed are torch.Generator"),
        ([np.random.default_rng(1), 3], "allowed are torch.Generator"),
        ([np.random.default_rng(1), Generator("cuda", 1, 0)], "allowed are torch.Generator"),
    ],
)
def test_generators_that_cannot_serve(pipe: tx.Pipeline, generator: Any, words: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match=words):
        tx.Noise.from_generator(generator)
    with pytest.raises(errors.InvalidRequestError, match=words):
        latents(pipe, generator=generator)


@pytest.mark.parametrize(
    ("device", "words", "size"), [("cpu", [1, 2], "5056"), ("cuda", [1], "16")]
)
def test_states_of_another_size(device: str, words: list[int], size: str) -> None:
    noise = tx.Noise.from_generator(Generator(device, *words))
    with pytest.raises(errors.InvalidRequestError, match=f"state of {8 * len(words)} .* {size}"):
        noise.randn((1, 16))


def test_a_state_that_no_generator_has() -> None:
    state = np.zeros(5056, np.uint8)
    state.view(np.uint64)[2] = 700  # words used of 624
    with pytest.raises(errors.InvalidRequestError, match="700 words used"):
        _core.CallerStream.torch_states([state.tobytes()], [])


@pytest.mark.parametrize(
    ("states", "owners", "words"),
    [
        ([], [], "0 states"),
        ([bytes(16)] * 2, [], "2 states without owners"),
        ([bytes(16)], [1], "number 1 of 1"),
    ],
)
def test_owners_that_do_not_fit(states: Any, owners: Any, words: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match=words):
        _core.CallerStream.cuda_states(states, owners)
    with pytest.raises(errors.InvalidRequestError, match="3 images was asked of 2 generators"):
        _core.CallerStream.cuda_states([bytes(16)], [0, 0]).draw(3, 4)


def test_numbers_of_generators(pipe: tx.Pipeline) -> None:
    with pytest.raises(errors.InvalidRequestError, match="3 for 2 images"):
        latents(pipe, generator=[np.random.default_rng(1)] * 3)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"generator": np.random.default_rng(1), "seed": 3}, "seed"),
        ({"generator": np.random.default_rng(1), "noise": "philox"}, "noise"),
        ({"noise": tx.Noise.torch([1, 2]), "seed": 3}, "seed"),
        ({"noise": tx.Noise.torch([1, 2, 3])}, "noise"),
    ],
)
def test_two_sources_at_once(pipe: tx.Pipeline, options: dict[str, Any], param: str) -> None:
    with pytest.raises(errors.InvalidRequestError) as caught:
        latents(pipe, **options)
    assert caught.value.details["param"] == param


def test_one_call_at_a_time_draws_from_a_generator(net: tx.Denoiser) -> None:
    generator = np.random.default_rng(1)
    noise = tx.Noise.from_generator(generator)
    refused: list[Exception] = []

    def watch(step: int, x: Any, denoised: Any) -> None:
        def other() -> None:
            with pytest.raises(errors.InvalidRequestError, match="in use") as caught:
                tx.Noise.from_generator([generator]).randn((1, 4))
            refused.append(caught.value)

        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    sample(net, noise, on_step=watch)
    assert len(refused) == 4
    noise.randn((1, 4))  # free again


# -- arrays and functions ---------------------------------------------------------------------


def test_streams_of_all_kinds_draw_alike() -> None:
    values = np.random.default_rng(4).standard_normal((2, 3, 5)).astype(np.float32)
    streams = [
        tx.Noise.given(values).stream(3),
        tx.Noise.given(lambda index, shape: values[index]).stream(3),
        tx.Noise.from_generator(np.random.default_rng(4)).stream(3),
    ]
    for index in range(2):
        for stream in streams:
            np.testing.assert_array_equal(stream.draw(3, 5), values[index])


def test_given_draws_in_a_pipeline(pipe: tx.Pipeline) -> None:
    stream = tx.Noise.torch([5, 6]).stream(2)
    shape = latents(pipe, seed=1).shape
    draws = np.stack([draw(stream, shape) for _ in range(4)])
    expected = latents(pipe, seed=[5, 6])
    out = pipe(
        ["a", "b"],
        num_inference_steps=4,
        sampler="euler_ancestral",
        noise=tx.Noise.given(draws),
        output_type="latent",
    )
    np.testing.assert_array_equal(out.images, expected)
    assert out.seeds == ()
    assert out.parameters["noise"] == "given"


def test_a_function_is_asked_draw_by_draw(pipe: tx.Pipeline, net: tx.Denoiser) -> None:
    asked: list[tuple[int, tuple[int, ...]]] = []

    def function(index: int, shape: tuple[int, ...]) -> np.ndarray:
        asked.append((index, shape))
        return np.random.default_rng(index).standard_normal(shape)

    noise = tx.Noise.given(function)
    got = latents(pipe, noise=noise)
    assert asked == [(k, got.shape) for k in range(4)]
    np.testing.assert_array_equal(got, latents(pipe, noise=noise))
    asked.clear()
    sample(net, noise)
    assert asked == [(k, SHAPE) for k in range(3)]


def test_what_a_function_raises_comes_through(net: tx.Denoiser) -> None:
    def fails(index: int, shape: tuple[int, ...]) -> np.ndarray:
        if index == 1:
            raise KeyError("mine")
        return np.zeros(shape)

    with pytest.raises(KeyError, match="mine"):
        sample(net, tx.Noise.given(fails))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((3, 2, 4, 3, 5)), r"shape \(2, 4, 3, 5\), allowed here is \(2, 4, 5, 3\)"),
        (np.zeros((3, 2, 60)), "allowed here is"),
        (np.zeros((2, *SHAPE)), "noise: 2 draws, allowed for this run are 3 or more"),
        (lambda index, shape: np.zeros(shape[:-1]), r"gave shape \(2, 4, 5\) for draw 0"),
        (lambda index, shape: "text", "noise"),
        (lambda index, shape: None, "noise"),
    ],
)
def test_given_noise_that_does_not_fit(net: tx.Denoiser, values: Any, words: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match=words):
        sample(net, tx.Noise.given(values))


def test_a_sampler_that_draws_nothing_asks_for_nothing(net: tx.Denoiser) -> None:
    expected = sample(net, None, "euler")
    given = tx.Noise.given(np.zeros((1, 9)))
    np.testing.assert_array_equal(sample(net, given, "euler"), expected)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda a, b: np.zeros((a, b)), "contiguous float32"),
        (lambda a, b: np.zeros((a, b + 1), np.float32), "5 values, 4 were asked for"),
        (lambda a, b: None, "NoneType"),
    ],
)
def test_native_functions_are_checked(made: Any, words: str) -> None:
    with pytest.raises(errors.InvalidRequestError, match=words):
        _core.NoiseStream.function(made).draw(1, 4)


def test_equality_and_hashes() -> None:
    generator = np.random.default_rng(1)
    assert tx.Noise.from_generator(generator) == tx.Noise.from_generator([generator])
    assert tx.Noise.from_generator(generator) != tx.Noise.from_generator(np.random.default_rng(1))
    assert tx.Noise.given(draw) == tx.Noise.given(draw)
    assert len({tx.Noise.given(draw), tx.Noise.from_generator(generator), tx.Noise.torch(1)}) == 3


# -- the same image in any company ------------------------------------------------------------


@pytest.mark.parametrize("noise", ["torch", "cuda", "philox", "brownian"])
def test_an_image_is_the_same_alone_in_a_batch_and_in_a_thread(
    pipe: tx.Pipeline, noise: str
) -> None:
    def one(seed: int) -> np.ndarray:
        return pipe(
            "b",
            num_inference_steps=4,
            sampler="dpmpp_2m_sde",
            seed=seed,
            noise=noise,
            output_type="latent",
            subseed=seed + 100,
            subseed_strength=0.3,
        ).images

    alone = [one(seed) for seed in (3, 4)]
    batch = pipe(
        ["b", "b"],
        num_inference_steps=4,
        sampler="dpmpp_2m_sde",
        seed=3,
        noise=noise,
        output_type="latent",
        subseed=103,
        subseed_strength=0.3,
    )
    np.testing.assert_array_equal(batch.images, np.concatenate(alone))
    assert batch.seeds == (3, 4)
    with ThreadPoolExecutor(4) as pool:
        for k, image in enumerate(pool.map(one, [3, 4] * 4)):
            np.testing.assert_array_equal(image, alone[k % 2])
