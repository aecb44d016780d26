"""Brownian noise: unit normal increments of one path over sigma, whatever the steps.

Bounds are 4.5 standard errors at fixed seeds, so that the outcome is fixed, too.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from itertools import pairwise
from math import sqrt
from typing import Any

import numpy as np
import pytest

import textopia_fast as tx
from tests.support.networks import tanh_network
from textopia_fast import _core, errors
from textopia_fast.noise_streams import draw

COUNT = 1 << 17
LEVELS = [80.0, 14.6, 9.1, 4.0, 2.2, 1.0, 0.31, 0.3, 0.02, 1e-9, 0.0]


def increments(intervals: list[tuple[float, float]], seed: int = 3, count: int = COUNT) -> Any:
    """Unit normal draws, float64 [draws, count]."""
    stream = tx.Noise.brownian([seed]).stream(1)
    assert isinstance(stream, _core.BrownianStream)
    stream.follow(intervals)
    return np.concatenate([stream.draw(1, count) for _ in intervals]).astype(np.float64)


def test_increments_are_standard_normal_and_independent() -> None:
    z = increments(list(pairwise(LEVELS[:-1])))
    assert np.abs(z.mean(1)).max() < 4.5 / sqrt(COUNT)
    assert np.abs((z**2).mean(1) - 1).max() < 4.5 * sqrt(2 / COUNT)
    assert np.abs((z**4).mean(1) - 3).max() < 4.5 * sqrt(96 / COUNT)
    covariance = z @ z.T / COUNT
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 4.5 / sqrt(COUNT)


def test_points_inside_an_octave_are_those_of_a_brownian_path() -> None:
    """Neighbouring short steps, where the tree is deep, and the steps of a fine schedule."""
    for sigmas in (np.linspace(1.9, 1.1, 60), np.geomspace(15, 0.05, 60)):
        z = increments(list(pairwise(sigmas.tolist())), count=1 << 14)
        n = z.shape[1]
        assert np.abs((z**2).mean(1) - 1).max() < 4.5 * sqrt(2 / n)
        covariance = z @ z.T / n
        assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 4.8 / sqrt(n)


@pytest.mark.parametrize("middle", [7.3, 1.0, 0.5000001, 1e-3])
def test_parts_add_up_to_the_whole(middle: float) -> None:
    for top, bottom in ((14.6, 0.0), (14.6, 2e-4), (9.0, 3e-5)):
        whole, first, second = increments(
            [(top, bottom), (top, middle), (middle, bottom)], count=5000
        )
        summed = sqrt(top - middle) * first + sqrt(middle - bottom) * second
        # float32 sums, and sigmas rounded to 2^-20 of themselves in the weights.
        np.testing.assert_allclose(summed / sqrt(top - bottom), whole, rtol=0, atol=3e-5)


def test_correlation_is_that_of_overlapping_intervals() -> None:
    a, b = increments([(10.0, 2.0), (6.0, 1.0)])
    expected = (6.0 - 2.0) / sqrt((10.0 - 2.0) * (6.0 - 1.0))
    assert abs((a * b).mean() - expected) < 4.5 * sqrt((1 + expected**2) / COUNT)


def test_the_way_back_is_the_way_there_with_the_other_sign() -> None:
    there, back, again = increments([(9.1, 0.3), (0.3, 9.1), (9.1, 0.3)], count=1000)
    np.testing.assert_array_equal(there, -back)
    np.testing.assert_array_equal(there, again)


def test_values_do_not_depend_on_what_was_asked_before_or_on_the_batch() -> None:
    alone = increments([(2.0, 1.0)], seed=8, count=777)[0].astype(np.float32)
    later = increments([(9.0, 3.0), (3.0, 2.0), (2.0, 1.0)], seed=8, count=777)[2]
    np.testing.assert_array_equal(later.astype(np.float32), alone)
    stream = tx.Noise.brownian([5, 8, 5]).stream(3)
    rows = draw(stream, (3, 777), (2.0, 1.0))
    np.testing.assert_array_equal(rows[1], alone)
    np.testing.assert_array_equal(rows[0], rows[2])
    assert (rows[0] != rows[1]).mean() > 0.99


def test_other_draws_are_torchs() -> None:
    brownian, torch = tx.Noise.brownian(6), tx.Noise.torch([6, 7])
    stream, expected = brownian.stream(2), torch.stream(2)
    for interval in (None, (2.0, 1.0), (1.0, 1.0), (1.0, 1.0 + 1e-9), None):
        got = draw(stream, (2, 4, 5), interval)
        if interval != (2.0, 1.0):
            np.testing.assert_array_equal(got, draw(expected, (2, 4, 5)))
    np.testing.assert_array_equal(brownian.randn((2, 4, 5)), torch.randn((2, 4, 5)))


@pytest.mark.parametrize("isa", _core.supported_isas())
def test_every_isa_gives_the_same_bits(isa: str) -> None:
    program = (
        "import hashlib\n"
        "from textopia_fast import _core\n"
        "stream = _core.BrownianStream.of_seeds([11])\n"
        "stream.follow([(9.0, 2.5), (2.5, 1.7)])\n"
        "sums = [hashlib.sha256(stream.draw(1, 777).tobytes()).hexdigest() for _ in range(2)]\n"
        "print(_core.active_isa(), *sums)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TEXTOPIA_FORCE_ISA": isa},
        capture_output=True,
        text=True,
        check=True,
    )
    draws = increments([(9.0, 2.5), (2.5, 1.7)], seed=11, count=777).astype(np.float32)
    sums = [hashlib.sha256(row.tobytes()).hexdigest() for row in draws]
    assert done.stdout.split() == [isa, *sums]


@pytest.mark.parametrize("sigma", [-1.0, float("nan"), float("inf"), 2.0**40])
def test_levels_off_the_path(sigma: float) -> None:
    stream = _core.BrownianStream.of_seeds([1])
    with pytest.raises(errors.InvalidRequestError, match="sigma"):
        stream.follow([(1.0, sigma)])


@pytest.mark.parametrize(
    "sampler", ["euler_ancestral", "dpmpp_2m_sde", "dpmpp_sde", "euler_ancestral_cfg_pp"]
)
def test_more_steps_follow_the_same_path(sampler: str) -> None:
    """Halving the steps changes a sample little; with independent noise it becomes another one."""
    denoiser = tx.Denoiser(tanh_network(), noise_input="sigma", threads=1)
    rng = np.random.default_rng(0)
    cond = {"context": rng.standard_normal((1, 5, 4)).astype(np.float32)}
    x = 10.0 * rng.standard_normal((1, 4, 16, 16)).astype(np.float32)
    fine = np.geomspace(10.0, 0.5, 65)

    def sample(steps: int, noise: tx.Noise) -> np.ndarray:
        program = denoiser.trace(sampler, fine[:: 64 // steps].tolist())
        assert all(program.intervals)
        return tx.sample(denoiser, x, program, cond=cond, uncond=cond, noise=noise)

    def change(noise: tx.Noise) -> float:
        return float(np.abs(sample(32, noise) - sample(64, noise)).mean())

    assert change(tx.Noise.brownian(2)) < 0.4 * change(tx.Noise.philox(2))


def test_intervals_of_a_program() -> None:
    sigmas = [10.0, 4.0, 1.0, 0.0]

    def intervals(sampler: Any, **options: Any) -> Any:
        return tx.trace(sampler, sigmas, "epsilon", **options).intervals

    assert intervals("euler_ancestral") == ((10.0, 4.0), (4.0, 1.0))
    middle = [sqrt(40.0), 2.0]
    found = [level for pair in intervals("dpmpp_sde") for level in pair]
    expected = [10.0, middle[0], middle[0], 4.0, 4.0, middle[1], middle[1], 1.0]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert intervals("euler", s_churn=1.0) == (None, None, None)

    def own(m: Any, x: Any, levels: Any) -> Any:
        unused, used, both = m.noise(9.0, 8.0), m.noise(7.0, 6.0), m.noise()
        assert unused is not used
        return m.denoise(x + 2.0 * both + used, 1.0) + both

    assert intervals(own) == ((7.0, 6.0), None)


@pytest.mark.parametrize("interval", [(1.0, None), (None, 1.0), (-1.0, 0.0), ("a", 2.0)])
def test_intervals_that_are_none(interval: tuple[Any, Any]) -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"m\.noise"):
        tx.trace(lambda m, x, sigmas: x + m.noise(*interval), [1.0, 0.0])
