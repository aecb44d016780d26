"""Sub-seeds and resized seeds, against the rules of stable-diffusion-webui written out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import textopia_fast as tx
from textopia_fast import errors
from textopia_fast.variation import slerp


@pytest.fixture(scope="module")
def pipe(tiny_model: Path) -> tx.Pipeline:
    return tx.Pipeline.from_pretrained(tiny_model, threads=1)


@pytest.fixture(scope="module")
def size(pipe: tx.Pipeline) -> tuple[int, int, int]:
    """Pixels of a side, channels and side of the latents."""
    facts = pipe.directory.facts
    factor = facts.vae_scale_factor
    return facts.default_height, facts.latent_channels, facts.default_height // factor


def latents(pipe: tx.Pipeline, **options: Any) -> np.ndarray:
    options = {"num_inference_steps": 3, "sampler": "euler"} | options
    return pipe("a", output_type="latent", **options).images


def noise(seed: int, *shape: int) -> np.ndarray:
    return tx.Noise.torch(seed).randn((1, *shape))


def vectors(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_slerp_column_by_column() -> None:
    a, b = vectors(1, 2, 3, 7, 5), vectors(2, 2, 3, 7, 5)
    mixed = slerp(0.3, a, b)
    assert mixed.dtype == np.float32
    for index in np.ndindex(2, 3, 5):
        image, channel, column = index
        u, v = (z[image, channel, :, column].astype(np.float64) for z in (a, b))
        omega = np.arccos(u @ v / np.linalg.norm(u) / np.linalg.norm(v))
        expected = (np.sin(0.7 * omega) * u + np.sin(0.3 * omega) * v) / np.sin(omega)
        np.testing.assert_allclose(mixed[image, channel, :, column], expected, atol=1e-5)


def test_slerp_at_its_ends_and_in_its_middle() -> None:
    a, b = vectors(3, 1, 4, 64, 64), vectors(4, 1, 4, 64, 64)
    np.testing.assert_allclose(slerp(0.0, a, b), a, atol=1e-6)
    np.testing.assert_allclose(slerp(1.0, a, b), b, atol=1e-6)
    np.testing.assert_allclose(slerp(0.4, a, b), slerp(0.6, b, a), atol=1e-6)
    # Half the way between independent noises stays unit normal (the straight line has 1/2);
    # 5 standard errors of a variance of 16,384 numbers.
    assert abs(slerp(0.5, a, b).var() - 1.0) < 5 * (2 / a.size) ** 0.5


def test_slerp_of_parallel_noise_is_the_straight_line() -> None:
    a = vectors(5, 2, 4, 6, 6)
    near = a * 3 + 1e-3 * vectors(6, 2, 4, 6, 6)
    near[1] = vectors(7, 4, 6, 6)  # the second image is not parallel
    mixed = slerp(0.25, a, near)
    np.testing.assert_allclose(mixed[0], 0.75 * a[0] + 0.25 * near[0], atol=1e-6)
    assert np.abs(mixed[1] - (0.75 * a[1] + 0.25 * near[1])).max() > 0.1
    np.testing.assert_array_equal(slerp(0.5, a, a), a)


def test_slerp_of_columns_without_a_direction() -> None:
    """Latents one row high, opposite columns, columns of zeros."""
    low, row = vectors(8, 1, 4, 1, 9), vectors(9, 1, 4, 1, 9)
    np.testing.assert_allclose(slerp(0.5, low, row), 0.5 * (low + row), atol=1e-6)
    a = vectors(10, 1, 4, 6, 3)
    b = vectors(11, 1, 4, 6, 3)
    b[..., 0], a[..., 1] = -a[..., 0], 0.0
    assert np.isfinite(slerp(0.5, a, b)).all()


@pytest.mark.parametrize("kind", ["torch", "cuda", "philox"])
def test_a_subseed_moves_the_start(pipe: tx.Pipeline, size: Any, kind: str) -> None:
    _, channels, side = size
    shape = (1, channels, side, side)
    make = getattr(tx.Noise, kind)
    start = slerp(0.2, make(5).randn(shape), make(9).randn(shape))
    got = latents(pipe, seed=5, subseed=9, subseed_strength=0.2, noise=kind)
    np.testing.assert_array_equal(got, latents(pipe, latents=start))
    plain = latents(pipe, seed=5, noise=kind)
    np.testing.assert_array_equal(
        latents(pipe, seed=5, subseed=9, subseed_strength=0, noise=kind), plain
    )
    other = latents(pipe, seed=9, noise=kind)
    full = latents(pipe, seed=5, subseed=9, subseed_strength=1.0, noise=kind)
    np.testing.assert_allclose(full, other, rtol=1e-4, atol=1e-4)


def test_later_draws_are_those_of_the_seed(pipe: tx.Pipeline, size: Any) -> None:
    _, channels, side = size
    stream = tx.Noise.torch([5]).stream(1)
    draws = [stream.draw(1, channels * side * side) for _ in range(4)]
    draws = [values.reshape(1, channels, side, side) for values in draws]
    draws[0] = slerp(0.5, draws[0], noise(9, channels, side, side))
    options = {"sampler": "euler_ancestral", "num_inference_steps": 4}
    expected = latents(pipe, noise=tx.Noise.given(np.stack(draws)), **options)
    got = latents(pipe, seed=5, subseed=9, subseed_strength=0.5, **options)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(("taller", "wider"), [(3, 1), (-3, -1), (2, -2), (0, 3), (0, 0)])
def test_a_resized_seed_keeps_its_middle(
    pipe: tx.Pipeline, size: Any, taller: int, wider: int
) -> None:
    _, channels, side = size
    factor = pipe.directory.facts.vae_scale_factor
    small = (side + taller, side + wider)
    start, of = noise(5, channels, side, side), noise(5, channels, *small)
    for row in range(side):
        for column in range(side):
            # Where this point lies in the other picture: half of the difference, rounded down.
            there = row - (-taller // 2), column - (-wider // 2)
            is_inside = all(0 <= k < n for k, n in zip(there, small, strict=True))
            if is_inside and _is_kept(there, (row, column), small, side):
                start[..., row, column] = of[..., there[0], there[1]]
    got = latents(pipe, seed=5, seed_resize_from=(small[0] * factor, small[1] * factor))
    np.testing.assert_array_equal(got, latents(pipe, latents=start))


def _is_kept(there: Any, here: Any, small: Any, side: int) -> bool:
    """An odd surplus of the other picture loses one more row at its end."""
    kept = [n if n <= side else n + 2 * ((side - n) // 2) for n in small]
    return all(h - max((side - n) // 2, 0) < k for h, k, n in zip(here, kept, small, strict=True))


def test_a_resized_seed_of_the_same_size_is_the_seed(pipe: tx.Pipeline, size: Any) -> None:
    pixels = size[0]
    got = latents(pipe, seed=5, seed_resize_from=(pixels, pixels))
    np.testing.assert_array_equal(got, latents(pipe, seed=5))


def test_a_series_of_variations(pipe: tx.Pipeline) -> None:
    series = pipe(
        ["a"] * 3,
        num_inference_steps=3,
        sampler="euler",
        seed=[5] * 3,
        subseed=[9, 8, 7],
        subseed_strength=0.1,
        output_type="latent",
    ).images
    for image, subseed in zip(series, (9, 8, 7), strict=True):
        alone = latents(pipe, seed=5, subseed=subseed, subseed_strength=0.1)
        np.testing.assert_array_equal(image, alone[0])


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"subseed_strength": 0.5}, "subseed"),
        ({"subseed": 1, "subseed_strength": 1.5}, "subseed_strength"),
        ({"subseed": 1, "subseed_strength": -0.1}, "subseed_strength"),
        ({"subseed": 1, "subseed_strength": float("nan")}, "subseed_strength"),
        ({"subseed": -1, "subseed_strength": 0.5}, "subseed"),
        ({"subseed": [1, 2], "subseed_strength": 0.5}, "subseed"),
        ({"subseed": 2**64, "subseed_strength": 0.5}, "subseed"),
        ({"seed_resize_from": (64,)}, "seed_resize_from"),
        ({"seed_resize_from": (64, None)}, "seed_resize_from"),
        ({"seed_resize_from": (64, 3)}, "seed_resize_from"),
        ({"seed_resize_from": 64}, "seed_resize_from"),
        (
            {"subseed": 1, "subseed_strength": 0.5, "generator": np.random.default_rng(1)},
            "subseed",
        ),
        ({"seed_resize_from": (64, 64), "noise": tx.Noise.torch(1)}, "seed_resize_from"),
    ],
)
def test_variations_that_cannot_be(pipe: tx.Pipeline, options: Any, param: str) -> None:
    with pytest.raises(errors.InvalidRequestError) as caught:
        latents(pipe, **options)
    assert caught.value.details["param"] == param


def test_latents_of_ones_own_cannot_be_varied(pipe: tx.Pipeline, size: Any) -> None:
    start = noise(1, *size[1:], size[2])
    with pytest.raises(errors.InvalidRequestError, match="latents"):
        latents(pipe, latents=start, subseed=1, subseed_strength=0.5)
