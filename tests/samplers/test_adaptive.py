"""The probability-flow ODE: closed forms, orders, tolerances, SciPy."""

from __future__ import annotations

from itertools import pairwise
from math import exp, log
from typing import Any

import numpy as np
import pytest

from textopia_fast.errors import InvalidRequestError
from textopia_fast.samplers.adaptive import StepSize, dpm_adaptive, rk45
from textopia_fast.samplers.probability_flow import probability_flow

HIGH, LOW = 10.0, 0.1
MEANS = np.array([-1.0, 1.0])


class Arrays:
    """An `m` on float64 arrays that counts; D is the exact one of x0 ~ N(0, v) or of two points."""

    def __init__(self, v: float | None) -> None:
        self.v, self.runs, self.steps = v, 0, 0
        self.rng = np.random.default_rng(5)

    def denoise(self, x: np.ndarray, sigma: float) -> np.ndarray:
        self.runs += 1
        if self.v is None:
            return np.tanh(x / sigma**2)  # x0 is -1 or 1
        return x * self.v / (self.v + sigma**2)

    def noise(self, *interval: float) -> np.ndarray:
        return self.rng.standard_normal(x0().shape)

    def step(self, x: np.ndarray, denoised: Any = None, info: Any = None) -> None:
        self.steps += 1


def x0() -> np.ndarray:
    return HIGH * np.random.default_rng(4).standard_normal((3, 5))


def exact(v: float) -> np.ndarray:
    """dx/dsigma = x*sigma/(v + sigma^2)."""
    return x0() * np.sqrt((v + LOW**2) / (v + HIGH**2))


def error(sampler: Any, sigmas: Any, v: float = 0.5, **options: Any) -> tuple[float, int]:
    m = Arrays(v)
    got = sampler(m, x0(), sigmas, **options)
    return float(np.abs(got / exact(v) - 1).max()), m.runs


def test_rk45_stays_within_its_tolerance() -> None:
    errors, runs = zip(
        *(error(rk45, (HIGH, LOW), rtol=10.0**-k, atol=0.0) for k in (3, 5, 7, 9)), strict=True
    )
    # Errors per step add up over some ten to a hundred of them.
    assert all(e < 20 * 10.0**-k for e, k in zip(errors, (3, 5, 7, 9), strict=True))
    assert errors[0] > errors[1] > errors[2] > errors[3]
    # order 5: a hundred times the accuracy costs at most 100^(1/5) = 2.5 times the work, and a bit
    assert all(b < 3.2 * a for a, b in pairwise(runs))


def test_rk45_equals_scipy() -> None:
    integrate = pytest.importorskip("scipy.integrate")
    m = Arrays(None)

    def slope(u: float, x: np.ndarray) -> np.ndarray:
        points = x.reshape(3, 5)
        return (points - m.denoise(points, exp(u))).ravel()

    tolerances = {"rtol": 1e-6, "atol": 1e-6}
    theirs = integrate.solve_ivp(
        slope, (log(HIGH), log(LOW)), x0().ravel(), method="RK45", **tolerances
    )
    mine = Arrays(None)
    got = rk45(mine, x0(), (HIGH, LOW), **tolerances)
    # both are within some tolerances of the solution, and of each other
    np.testing.assert_allclose(got.ravel(), theirs.y[:, -1], atol=2e-4)
    assert mine.runs < 1.3 * theirs.nfev


def test_rk45_ends_with_the_denoised_latent_at_0() -> None:
    m = Arrays(0.5)
    got = rk45(m, x0(), (HIGH, 3.0, LOW, 0.0))
    np.testing.assert_allclose(got, exact(0.5) * 0.5 / (0.5 + LOW**2), rtol=1e-4)
    alone = Arrays(0.5)
    np.testing.assert_allclose(rk45(alone, x0(), (2.0, 0.0)), x0() * 0.5 / 4.5)
    assert alone.steps == 1


def test_rk45_takes_a_network_without_error() -> None:
    class Zero(Arrays):
        def denoise(self, x: np.ndarray, sigma: float) -> np.ndarray:
            return 0 * x + x  # dx/du = 0

    np.testing.assert_array_equal(rk45(Zero(1.0), x0(), (HIGH, LOW)), x0())


def test_probability_flow_is_of_order_4() -> None:
    errors = [error(probability_flow, np.geomspace(HIGH, LOW, n + 1))[0] for n in (10, 20, 40)]
    for coarse, fine in pairwise(errors):
        assert 12 < coarse / fine < 22  # 2^4, and what higher orders add
    steps = error(probability_flow, np.geomspace(HIGH, LOW, 11).tolist())
    assert steps[1] == 40


def test_probability_flow_ends_at_0_and_stands_at_repeated_levels() -> None:
    m = Arrays(0.5)
    got = probability_flow(m, x0(), (HIGH, HIGH, 0.0))
    np.testing.assert_allclose(got, x0() * 0.5 / (0.5 + HIGH**2))


@pytest.mark.parametrize("order", [2, 3])
def test_dpm_adaptive_gets_nearer_with_its_tolerance(order: int) -> None:
    loose, runs = error(dpm_adaptive, (HIGH, LOW), order=order)
    fine, more = error(dpm_adaptive, (HIGH, LOW), order=order, rtol=1e-4, atol=1e-6)
    assert fine < loose / 20
    assert fine < 1e-3
    assert more > runs


def test_the_controller_by_hand() -> None:
    """k-diffusion's rule: factor 1 + atan(prod error^-b - 1), accepted from accept_safety on."""
    size = StepSize(0.1, 2.0, 0.3, 1.0, 0.1, 0.81)
    b1, b2, b3 = 1.4 / 2, -0.5 / 2, 0.1 / 2
    h, past = 0.1, None
    for e in (0.5, 4.0, 0.8, 1.1, 0.2):
        inverse = 1 / (e + 1e-8)
        one, two = past or (inverse, inverse)
        factor = 1 + np.arctan(inverse**b1 * one**b2 * two**b3 - 1)
        assert size.accept(e) == (factor >= 0.81)
        if past is None or factor >= 0.81:
            past = (inverse, one)
        h *= factor
        assert size.h == pytest.approx(h, rel=1e-12)


@pytest.mark.parametrize("sampler", [rk45, dpm_adaptive])
@pytest.mark.parametrize("wrong", [{"rtol": -1e-3}, {"rtol": 0.0, "atol": 0.0}, {"atol": -1.0}])
def test_bad_tolerances(sampler: Any, wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidRequestError, match="tol: got"):
        sampler(Arrays(1.0), x0(), (HIGH, LOW), **wrong)
