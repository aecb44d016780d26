"""BrownianTreeNoiseSampler: k-diffusion's signature, our path, in every way to run a sampler."""

from __future__ import annotations

from inspect import signature
from math import log, sqrt
from typing import Any

import numpy as np
import pytest

import textopia_fast as tx
from tests.support.networks import tanh_formula, tanh_network
from textopia_fast import errors
from textopia_fast.interop import k_diffusion
from textopia_fast.interop.k_diffusion import BrownianTreeNoiseSampler

SIGMAS = [10.0, 4.0, 1.5, 0.4, 0.0]
SHAPE = (2, 4, 5, 3)


def start() -> np.ndarray:
    return 10.0 * np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)


def test_the_signature() -> None:
    names = ["x", "sigma_min", "sigma_max", "seed", "transform", "cpu"]
    assert list(signature(BrownianTreeNoiseSampler).parameters) == names


def test_the_path_is_the_seeds() -> None:
    x = start()
    sampler = BrownianTreeNoiseSampler(x, 0.4, 10.0, seed=5)
    first, second, whole = sampler(10.0, 4.0), sampler(4.0, 0.4), sampler(10.0, 0.4)
    np.testing.assert_allclose(sqrt(6.0) * first + sqrt(3.6) * second, sqrt(9.6) * whole, atol=1e-4)
    np.testing.assert_array_equal(BrownianTreeNoiseSampler(x, 0.1, 80.0, 5)(10.0, 4.0), first)
    one = BrownianTreeNoiseSampler(x[1:], 0.4, 10.0, seed=[6])(10.0, 4.0)
    np.testing.assert_array_equal(one, first[1:])
    assert (BrownianTreeNoiseSampler(x, 0.4, 10.0)(10.0, 4.0) != first).all()
    np.testing.assert_array_equal(sampler(4.0, 10.0), -first)


def test_a_transform_gives_the_time() -> None:
    x = start()
    made = BrownianTreeNoiseSampler(x, 1.0, 10.0, 5, transform=lambda sigma: log(sigma))
    plain = BrownianTreeNoiseSampler(x, 0.0, 3.0, 5)
    np.testing.assert_array_equal(made(10.0, 2.0), plain(log(10.0), log(2.0)))
    with pytest.raises(errors.InvalidRequestError, match="sigma_next: -"):
        made(10.0, 0.5)


def test_torch_tensors() -> None:
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(start()).double()
    sigmas = torch.tensor(SIGMAS)
    made = BrownianTreeNoiseSampler(x, sigmas[-2], sigmas[0], seed=5)(sigmas[0], sigmas[1])
    assert made.dtype == torch.float64
    expected = BrownianTreeNoiseSampler(start(), 0.4, 10.0, 5)(10.0, 4.0)
    np.testing.assert_array_equal(made.float().numpy(), expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"x": 3.0}, "x: got 3.0"),
        ({"sigma_min": float("nan")}, "sigma_min"),
        ({"sigma_max": -1.0}, "sigma_max"),
        ({"seed": -1}, "seed"),
        ({"seed": [1, 2, 3]}, "3 seeds for 2 images"),
    ],
)
def test_what_cannot_be(options: dict[str, Any], words: str) -> None:
    given = {"x": start(), "sigma_min": 0.1, "sigma_max": 10.0} | options
    with pytest.raises(errors.InvalidRequestError, match=words):
        BrownianTreeNoiseSampler(**given)


@pytest.mark.parametrize(
    "name", ["euler_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde"]
)
def test_three_ways_to_the_same_sample(name: str) -> None:
    """A model in Python, a Denoiser with the sampler's draws, and the native path."""
    x = start()
    denoiser = tx.Denoiser(tanh_network(), noise_input="sigma", threads=1)
    context = np.random.default_rng(2).standard_normal((2, 5, 4)).astype(np.float32)

    def model(x: Any, sigma: Any) -> Any:
        s = float(sigma[0])
        return x - s * tanh_formula(x / (1 + s * s) ** 0.5, s, context)

    function = getattr(k_diffusion, f"sample_{name}")

    def sampler() -> Any:
        return BrownianTreeNoiseSampler(x, 0.4, 10.0, seed=5)

    called = function(model, x, SIGMAS, noise_sampler=sampler(), disable=True)
    cond = {"context": context}
    native = function(denoiser, x, SIGMAS, {"cond": cond}, noise_sampler=sampler(), disable=True)
    noise = tx.Noise.brownian(5)
    straight = tx.sample(denoiser, x, denoiser.trace(name, SIGMAS), cond=cond, noise=noise)
    np.testing.assert_array_equal(native, straight)
    np.testing.assert_allclose(called, native, rtol=0, atol=1e-4 * np.abs(native).max())
