"""MALA: the same chain in NumPy, and what it refuses. (Its distribution: `test_two_sample`.)"""

from __future__ import annotations

from math import erfc, sqrt
from typing import Any

import numpy as np
import pytest

import textopia_fast as tx
from tests.langevin.mixture import PLANE
from tests.langevin.test_two_sample import denoiser_of, log_density
from textopia_fast.errors import InvalidRequestError
from textopia_fast.samplers import step_by_step

SIGMA, ETA, COUNT, STEPS = 0.5, 0.4, 50, 20


def start() -> np.ndarray:
    x = np.random.default_rng(1).standard_normal((COUNT, 1, 1, 2))
    return (1.5 * x).astype(np.float32)


def run(x: np.ndarray, sigmas: list[float], noise: Any = None, **options: Any) -> np.ndarray:
    options = {"log_density": log_density(PLANE), **options}
    noise = tx.Noise.philox(2) if noise is None else noise
    program = step_by_step("mala", sigmas, "score", **options)
    return tx.sample(denoiser_of(2), x, program, noise=noise)


def test_equals_the_chain_in_numpy() -> None:
    """Proposal density and acceptance as of the paper, in float64; the draws are shared."""
    target = PLANE.smoothed(SIGMA)
    z = np.random.default_rng(3).standard_normal((2 * STEPS, COUNT, 1, 1, 2)).astype(np.float32)
    x = start().reshape(COUNT, 2).astype(np.float64)
    accepted = 0
    for i in range(STEPS):

        def log_q(to: np.ndarray, at: np.ndarray) -> np.ndarray:
            return -np.square(to - at - ETA * target.score(at)).sum(1) / (4 * ETA)

        y = x + ETA * target.score(x) + sqrt(2 * ETA) * z[2 * i].reshape(COUNT, 2)
        ratio = target.log_density(y) - target.log_density(x) + log_q(x, y) - log_q(y, x)
        uniform = np.array([erfc(-u / sqrt(2)) / 2 for u in z[2 * i + 1, :, 0, 0, 0].tolist()])
        taken = np.log(uniform) < ratio
        accepted += taken.mean() / STEPS
        x = np.where(taken[:, None], y, x)
    got = run(start(), [SIGMA] * (STEPS + 1), noise=tx.Noise.given(z), eta=ETA)
    assert 0.2 < accepted < 0.95  # both branches are taken
    # float32 scores; no draw of this seed is so close to the border that rounding decides it
    np.testing.assert_allclose(got.reshape(COUNT, 2), x, rtol=1e-4, atol=1e-4)


def test_rejected_images_stay_bit_for_bit() -> None:
    def unwilling(x: np.ndarray, sigma: float) -> np.ndarray:
        return -1e9 * np.abs(x - start()).sum((1, 2, 3))

    np.testing.assert_array_equal(run(start(), [SIGMA] * 4, log_density=unwilling), start())


def test_the_level_may_change() -> None:
    out = run(start(), [1.0, 1.0, 0.5, 0.5])
    assert np.isfinite(out).all()
    assert np.abs(out - start()).max() > 0.1


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"eta": 0.0}, "eta"),
        ({"eta": -1.0}, "eta"),
        ({"log_density": 3.0}, "log_density"),
        ({"log_density": lambda x, s: np.zeros(3)}, "log_density"),
        ({"log_density": lambda x, s: np.full(len(x), np.nan)}, "log_density"),
        ({"log_density": lambda x, s: 0.0}, "log_density"),
    ],
)
def test_bad_options(options: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        run(start(), [SIGMA] * 3, **options)
    assert caught.value.details["param"] == param


def test_the_density_has_to_be_given() -> None:
    with pytest.raises(InvalidRequestError, match="log_density"):
        step_by_step("mala", [1.0, 1.0])
