"""Langevin dynamics samples a mixture of Gaussians: means, covariances and weights of the modes.

10,000 native chains against the exact moments of the smoothed mixture. What is allowed is
K standard errors (estimated from the samples themselves) plus a stated discretisation bias:

* Langevin updates of size eta widen every direction of a Gaussian of variance v to
  v / (1 - eta / 2v), that is by eta / 2 to first order, whatever v is; twice that is allowed.
* Finitely many levels lag behind the target. For a Gaussian the end is an exact recursion; twice
  the largest deviation over the axes of all components is allowed.
* Means and weights move by second-order terms only; 1 % of the mixture's spread is allowed.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import sqrt

import numpy as np
import pytest

import textopia_fast as tx
from tests.langevin.mixture import PLANE, SPACE, Mixture, graph

COUNT = 10_000
K = 5.0
SHAPES = {2: (1, 1, 2), 4: (1, 2, 2)}
MIXTURES = {"plane": PLANE, "space": SPACE}
SIGMA_MAX = 8.0


def denoiser_of(mixture: Mixture, prediction: str) -> tx.Denoiser:
    output = "score" if prediction == "score" else "sample_out"
    return tx.Denoiser(
        graph(mixture, SHAPES[mixture.dimension], prediction),
        prediction=prediction,
        noise_input="sigma",
        inputs={"sample": "x", "noise_level": "sigma", "output": output},
        threads=1,
    )


def run(mixture: Mixture, prediction: str, program: tx.Program, seed: int) -> np.ndarray:
    """float64 [COUNT, d]."""
    shape = (COUNT, *SHAPES[mixture.dimension])
    x = np.random.default_rng(seed).standard_normal(shape, np.float32)
    out = tx.sample(
        denoiser_of(mixture, prediction),
        x * np.float32(program.initial_scale),
        program,
        noise=tx.Noise.philox(seed),
    )
    return out.reshape(COUNT, -1).astype(np.float64)


def assert_samples(x: np.ndarray, target: Mixture, bias: float) -> None:
    """The moments of x [N, d] are those of `target`; covariances up to `bias`."""
    spread = sqrt(target.covariance().diagonal().max())
    mean_error = np.abs(x.mean(0) - target.mean())
    assert (mean_error < K * x.std(0) / sqrt(len(x)) + 0.01 * spread).all(), mean_error

    away = x - x.mean(0)
    products = away[:, :, None] * away[:, None, :]
    covariance_error = np.abs(products.mean(0) - target.covariance())
    assert (covariance_error < K * products.std(0) / sqrt(len(x)) + bias).all(), covariance_error

    odds = target.responsibilities(x)
    weight_error = np.abs(odds.mean(0) - target.weights)
    assert (weight_error < K * odds.std(0) / sqrt(len(x)) + 0.01).all(), weight_error


def annealed_variance(levels: list[float], n_steps: int, step: float, v: float) -> float:
    """Where annealed Langevin ends on a Gaussian of variance v, exactly."""
    found = levels[0] ** 2
    for s in levels:
        eta = step * s**2
        for _ in range(n_steps):
            found = (1 - eta / (v + s**2)) ** 2 * found + 2 * eta
    return found


def corrected_variance(levels: list[float], snr: float, v: float) -> float:
    """Where reverse diffusion with one "ald" correction per level ends on such a Gaussian."""
    found = levels[0] ** 2
    for s, t in pairwise(levels):
        step = 2 * (snr * s) ** 2
        found = (1 - step / (v + s**2)) ** 2 * found + 2 * step
        found = ((v + t**2) / (v + s**2)) ** 2 * found + s**2 - t**2
    return found


def lag(mixture: Mixture, sigma: float, variance_at_end: Callable[[float], float]) -> float:
    """The largest deviation from the variance at level sigma over the axes of all components."""
    axes = np.linalg.eigvalsh(mixture.covariances).ravel()
    return max(abs(variance_at_end(v) - v - sigma**2) for v in axes)


@pytest.mark.parametrize(
    ("name", "prediction"),
    [("plane", "score"), ("plane", "sample"), ("space", "score"), ("space", "epsilon")],
)
def test_annealed_langevin(name: str, prediction: str) -> None:
    mixture, sigma = MIXTURES[name], 0.4
    levels = np.geomspace(SIGMA_MAX, sigma, 20).tolist()
    n_steps, step = 30, 0.15
    program = tx.trace(
        "annealed_langevin",
        tx.schedules.explicit([*levels, 0.0]),
        prediction=prediction,
        n_steps=n_steps,
        step=step,
        denoise=False,
    )
    x = run(mixture, prediction, program, seed=11)
    bias = 2 * lag(mixture, sigma, lambda v: annealed_variance(levels, n_steps, step, v))
    assert bias < 0.05
    assert_samples(x, mixture.smoothed(sigma), bias)


@pytest.mark.parametrize("name", MIXTURES)
def test_unadjusted_langevin_at_one_level(name: str) -> None:
    mixture = MIXTURES[name]
    sigma, eta = 0.6, 0.04
    program = tx.langevin(sigma, 500, eta=eta, initial_scale=1.5)
    x = run(mixture, "score", program, seed=12)
    assert_samples(x, mixture.smoothed(sigma), bias=eta)


@pytest.mark.parametrize("norm", ["ald", "batch"])
@pytest.mark.parametrize("name", MIXTURES)
def test_predictor_corrector(name: str, norm: str) -> None:
    """Norms per sample would be a different chain in so few dimensions; see the next test."""
    mixture = MIXTURES[name]
    sigma, snr = 0.1, 0.1
    levels = np.geomspace(SIGMA_MAX, sigma, 200).tolist()
    corrector = {"corrector": "ald"} if norm == "ald" else {"corrector": "langevin", "norm": norm}
    program = tx.trace(
        "predictor_corrector",
        tx.schedules.explicit(levels),
        prediction="score",
        snr=snr,
        n_steps=1,
        denoise=False,
        **corrector,
    )
    x = run(mixture, "score", program, seed=13)
    bias = 2 * lag(mixture, sigma, lambda v: corrected_variance(levels, snr, v))
    assert bias < 0.05
    assert_samples(x, mixture.smoothed(sigma), bias)
