"""Langevin dynamics on a Gaussian, where every step's variance is known: no bias is allowed for.

For p = N(0, diag(v)) the smoothed score is -x / (v + s^2), so each update is linear and the
variance V of the chain obeys an exact recursion, which the test writes down from the papers'
formulas. The sample variance of 10,000 chains must follow it within K standard errors,
V * sqrt(2 / 10,000) each.
"""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest

import textopia_fast as tx
from tests.langevin.mixture import Mixture, graph

COUNT = 10_000
K = 5.0  # standard errors: one in 1.7 million by chance, and the seeds are fixed
VARIANCES = np.array([0.3, 1.0, 4.0])
SHAPE = (1, 1, 3)
LEVELS = np.geomspace(8.0, 0.1, 24).tolist()


@pytest.fixture(scope="module")
def gaussian() -> tx.Denoiser:
    mixture = Mixture(np.ones(1), np.zeros((1, 3)), np.diag(VARIANCES)[None])
    roles = {"sample": "x", "noise_level": "sigma", "output": "score"}
    network = graph(mixture, SHAPE)
    return tx.Denoiser(network, prediction="score", noise_input="sigma", inputs=roles, threads=1)


def variance_of(denoiser: tx.Denoiser, program: tx.Program, start: float, seed: int) -> np.ndarray:
    """Variance about zero of each coordinate after the program, from x ~ N(0, start^2)."""
    x = np.random.default_rng(seed).standard_normal((COUNT, *SHAPE), np.float32) * np.float32(start)
    out = tx.sample(denoiser, x, program, noise=tx.Noise.philox(seed))
    assert out.dtype == np.float32
    return np.square(out.astype(np.float64)).mean(0).ravel()


def assert_variance(found: np.ndarray, expected: np.ndarray) -> None:
    error = np.abs(found - expected) / (expected * sqrt(2 / COUNT))
    assert (error < K).all(), f"{found} is {error} standard errors from {expected}"


def coefficients(eta: float, kind: str) -> tuple[float, float]:
    """Drift a and noise b of x <- x + a*score + b*z."""
    return (eta, sqrt(2 * eta)) if kind == "textbook" else (sqrt(2 * eta), sqrt(eta))


@pytest.mark.parametrize("kind", ["textbook", "as-printed"])
def test_annealed(gaussian: tx.Denoiser, kind: str) -> None:
    """Song & Ermon 2019, algorithm 1, with eta_i = 0.1 sigma_i^2."""
    program = gaussian.trace(
        "annealed_langevin",
        tx.schedules.explicit([*LEVELS, 0.0]),
        n_steps=4,
        step=0.1,
        coefficients=kind,
        denoise=False,
    )
    expected = np.full(3, LEVELS[0] ** 2)
    for sigma in LEVELS:
        a, b = coefficients(0.1 * sigma**2, kind)
        for _ in range(4):
            expected = (1 - a / (VARIANCES + sigma**2)) ** 2 * expected + b**2
    assert_variance(variance_of(gaussian, program, LEVELS[0], seed=1), expected)


@pytest.mark.parametrize("kind", ["textbook", "as-printed"])
def test_one_level(gaussian: tx.Denoiser, kind: str) -> None:
    """Both forms reach the stationary variance of their own temperature b^2 / 2a.

    x <- (1 - a/v) x + b z has the stationary variance v * T / (1 - a / 2v), T = b^2 / 2a. T is 1
    for the textbook form, up to the discretisation's 1 / (1 - a / 2v). The printed one is another
    distribution, much narrower here.
    """
    sigma, eta, steps = 0.2, 0.02, 600
    program = tx.langevin(sigma, steps, eta=eta, coefficients=kind)
    v = VARIANCES + sigma**2
    a, b = coefficients(eta, kind)
    temperature = b**2 / (2 * a)
    stationary = v * temperature / (1 - a / (2 * v))
    # after 600 steps the start is still felt in the widest coordinate of the textbook form
    left = (1 - a / v) ** (2 * steps)
    found = variance_of(gaussian, program, 1.0, seed=2)
    assert_variance(found, stationary + left * (1.0 - stationary))
    if kind == "textbook":
        assert temperature == pytest.approx(1.0)
    else:
        assert temperature == pytest.approx(sqrt(eta / 8))
        assert_variance(found, stationary)
        textbook_errors = np.abs(found - v) / (v * sqrt(2 / COUNT))
        assert (textbook_errors > 50).all(), (
            "the printed form must be seen to sample something else"
        )


def prediction(kind: str, s: float, t: float) -> tuple[float, float]:
    """Factor on the score and variance of the noise of one predictor step from s to t."""
    difference = s**2 - t**2
    if kind == "reverse_diffusion":  # Song et al. 2021, equation 46
        return difference, difference
    if kind == "ancestral":  # equation 47, the variance exploding case
        return difference, t**2 * difference / s**2
    if kind == "euler_maruyama":
        rate = 2 * s**2 * log(s / t) if t > 0 else difference
        return rate, rate
    return 0.0, 0.0


@pytest.mark.parametrize(
    ("predictor", "corrector"),
    [
        ("reverse_diffusion", "ald"),
        ("reverse_diffusion", "none"),
        ("ancestral", "ald"),
        ("ancestral", "none"),
        ("euler_maruyama", "ald"),
        ("euler_maruyama", "none"),
        ("none", "ald"),
    ],
)
def test_predictor_corrector(gaussian: tx.Denoiser, predictor: str, corrector: str) -> None:
    """Song et al. 2021, algorithm 1; the "ald" corrector steps by 2 (snr sigma)^2."""
    snr, n_steps = 0.2, 2
    program = gaussian.trace(
        "predictor_corrector",
        tx.schedules.explicit([*LEVELS, 0.0]),
        predictor=predictor,
        corrector=corrector,
        snr=snr,
        n_steps=n_steps,
        denoise=True,
    )
    expected = np.full(3, LEVELS[0] ** 2)
    for s, t in zip(LEVELS, [*LEVELS[1:], 0.0], strict=True):
        v = VARIANCES + s**2
        if corrector == "ald":
            step = 2 * (snr * s) ** 2
            for _ in range(n_steps):
                expected = (1 - step / v) ** 2 * expected + 2 * step
        factor, noise = prediction(predictor, s, t)
        expected = (1 - factor / v) ** 2 * expected + (noise if t > 0 else 0.0)
    assert_variance(variance_of(gaussian, program, LEVELS[0], seed=3), expected)


# --- the corrector whose step follows from norms


def many_dimensions() -> tuple[tx.Denoiser, float]:
    """A network over [1, 8, 8] latents of variance 1.5, and that variance at level 0.5."""
    d = 64
    mixture = Mixture(np.ones(1), np.zeros((1, d)), 1.5 * np.eye(d)[None])
    roles = {"sample": "x", "noise_level": "sigma", "output": "score"}
    network = graph(mixture, (1, 8, 8))
    denoiser = tx.Denoiser(
        network,
        prediction="score",
        noise_input="sigma",
        inputs=roles,
        threads=1,
        images_per_run=1000,
    )
    return denoiser, 1.5 + 0.5**2


def correct(denoiser: tx.Denoiser, norm: str, snr: float, steps: int) -> tx.Program:
    levels = tx.schedules.explicit([0.5] * (steps + 1))
    options = {"predictor": "none", "corrector": "langevin", "snr": snr, "norm": norm}
    return denoiser.trace("predictor_corrector", levels, **options)


@pytest.mark.parametrize("norm", ["sample", "batch"])
def test_norm_corrector(norm: str) -> None:
    """Song et al. 2021, algorithm 4, in d = 64 dimensions, at equilibrium.

    With r = |x|^2 and step = 2 snr^2 v^2 |z|^2 / r, the mean of r after a step equals that before
    only if 1 / E[1/r] = v (d + 2) (1 + snr^2), exactly. With norms averaged over many images the
    step is the constant 2 snr^2 v^2 / V, whose stationary variance is V = v (1 + snr^2).
    """
    denoiser, v = many_dimensions()
    snr, d, count = 0.2, 64, 1000
    x = np.random.default_rng(4).standard_normal((count, 1, 8, 8), np.float32) * np.float32(2.0)
    program = correct(denoiser, norm, snr, 80)  # what is left of the start: 1e-6
    out = tx.sample(denoiser, x, program, noise=tx.Noise.philox(4)).astype(np.float64)
    squares = np.square(out).sum((1, 2, 3))
    if norm == "sample":
        found, expected = 1 / np.mean(1 / squares), v * (d + 2) * (1 + snr**2)
    else:
        found, expected = squares.mean(), v * d * (1 + snr**2)
    # r is v times a chi-squared of d degrees of freedom: its relative spread is sqrt(2 / d)
    assert abs(found / expected - 1) < K * sqrt(2 / d / count)


def test_norms_per_sample_do_not_see_the_batch() -> None:
    denoiser, _ = many_dimensions()
    x = np.random.default_rng(5).standard_normal((3, 1, 8, 8), np.float32)
    for norm, is_independent in (("sample", True), ("batch", False)):
        program = correct(denoiser, norm, 0.2, 5)
        batch = tx.sample(denoiser, x, program, noise=tx.Noise.philox([7, 8, 9]))
        alone = tx.sample(denoiser, x[1:2], program, noise=tx.Noise.philox([8]))
        assert np.allclose(batch[1:2], alone, rtol=1e-5, atol=1e-5) == is_independent
