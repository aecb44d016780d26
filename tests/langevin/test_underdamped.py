"""Underdamped Langevin on a Gaussian, where the covariance of (x, p) obeys an exact recursion."""

from __future__ import annotations

from math import exp, sqrt
from typing import Any

import numpy as np
import pytest

import textopia_fast as tx
from tests.langevin.mixture import Mixture, graph
from tests.langevin.test_gaussian import assert_variance, gaussian, variance_of  # noqa: F401
from textopia_fast.errors import InvalidRequestError
from textopia_fast.tracing.program import Combine

VARIANCES = np.array([0.3, 1.0, 4.0])


def expected_variance(
    v: float, levels: list[float], n_steps: int, h: float, friction: float
) -> float:
    """Of x, started at levels[0]^2: B A O A as matrices on (x, p), from the paper's flows."""
    c = exp(-friction * h)
    covariance = np.diag([levels[0] ** 2, 1.0])
    for s in levels:
        kick = np.array([[1.0, 0.0], [-h * s / (v + s * s), 1.0]])
        drift = np.array([[1.0, h / 2 * s], [0.0, 1.0]])
        friction_step, fresh = np.diag([1.0, c]), np.diag([0.0, 1 - c * c])
        for _ in range(n_steps):
            for matrix in (kick, drift, friction_step):
                covariance = matrix @ covariance @ matrix.T
            covariance = drift @ (covariance + fresh) @ drift.T
    return float(covariance[0, 0])


@pytest.mark.parametrize(("h", "friction"), [(0.3, 1.0), (1.0, 1.0), (1.6, 0.5), (1.0, 0.0)])
def test_annealed(gaussian: tx.Denoiser, h: float, friction: float) -> None:  # noqa: F811
    levels = np.geomspace(8.0, 0.5, 6).tolist()
    options = {"n_steps": 2, "step": h, "friction": friction, "denoise": False}
    program = gaussian.trace("underdamped_langevin", [*levels, 0.0], **options)
    expected = [expected_variance(v, levels, 2, h, friction) for v in VARIANCES]
    found = variance_of(gaussian, program, levels[0], seed=6)
    assert_variance(found, np.array(expected))


@pytest.mark.parametrize("h", [0.5, 1.5])
def test_no_discretisation_bias(gaussian: tx.Denoiser, h: float) -> None:  # noqa: F811
    """The variance that BAOAB keeps in a Gaussian is the exact one, at any stable step."""
    sigma = 1.0
    options = {"n_steps": 1, "step": h, "friction": 0.7, "denoise": False}
    program = gaussian.trace("underdamped_langevin", [sigma] * 61, **options)
    exact = VARIANCES + sigma**2
    for v, variance in zip(VARIANCES, exact, strict=True):
        left = expected_variance(v, [sigma] * 60, 1, h, 0.7) / variance - 1
        assert abs(left) < 1e-3  # what is left of the start
    assert_variance(variance_of(gaussian, program, sigma, seed=7), exact)


def test_infinite_friction_is_the_method_of_leimkuhler_and_matthews() -> None:
    """x <- x + eta*score + sqrt(eta/2)*(z + z_next), eta = (h*sigma)^2/2, and p forgets all."""
    v, sigma, h = 2.0, 0.5, 0.8
    mixture = Mixture(np.ones(1), np.zeros((1, 2)), v * np.eye(2)[None])
    network = tx.Denoiser(
        graph(mixture, (1, 1, 2)),
        prediction="score",
        noise_input="sigma",
        inputs={"sample": "x", "noise_level": "sigma", "output": "score"},
        threads=1,
    )
    z = np.random.default_rng(8).standard_normal((4, 3, 1, 1, 2)).astype(np.float32)
    x = np.random.default_rng(9).standard_normal((3, 1, 1, 2)).astype(np.float32)
    options = {"n_steps": 1, "step": h, "friction": 1e3, "denoise": False}
    program = network.trace("underdamped_langevin", [sigma] * 4, **options)
    got = tx.sample(network, x, program, noise=tx.Noise.given(z))
    eta = (h * sigma) ** 2 / 2
    for i in range(3):
        x = x - eta * x / (v + sigma**2) + sqrt(eta / 2) * (z[i] + z[i + 1])
    np.testing.assert_allclose(got, x, rtol=1e-5, atol=1e-6)


def test_the_momentum_is_one_latent() -> None:
    """m.keep: two updates a run, whose operands do not grow with the number of updates."""
    program = tx.trace("underdamped_langevin", [2.0] * 101, "score", n_steps=3, denoise=False)
    assert program.denoise_count == 300
    assert program.combine_count == 2 * 300 + 1  # and the momentum of the start
    assert (program.x_registers, program.e_registers) == (3, 1)
    widest = max(len(i.terms) for i in program.instructions if isinstance(i, Combine))
    assert widest == 4  # x, p, the output, the next p


def test_keep_takes_latents_only() -> None:
    def sampler(m: Any, x: Any, sigmas: Any) -> Any:
        return m.keep(1.0)

    with pytest.raises(InvalidRequestError, match=r"m\.keep: float was passed"):
        tx.trace(sampler, [1.0, 0.0])


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"n_steps": 0}, "n_steps"),
        ({"step": 0.0}, "step"),
        ({"step": 2.0}, "step"),
        ({"friction": -0.1}, "friction"),
        ({"friction": float("nan")}, "friction"),
    ],
)
def test_bad_options(options: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        tx.trace("underdamped_langevin", [2.0, 1.0, 0.0], **options)
    assert caught.value.details["param"] == param
