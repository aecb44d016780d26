"""Prediction kinds: a network that is right about its own target denoises exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from textopia_fast.errors import InvalidRequestError
from textopia_fast.samplers import schedules, trace
from textopia_fast.tracing.prediction import PREDICTIONS, coefficients
from textopia_fast.tracing.reference import run


@pytest.mark.parametrize("sigma", [1e-3, 0.5, 1.0, 14.6, 2.0**24])
@pytest.mark.parametrize("kind", PREDICTIONS)
def test_a_right_network_gives_the_clean_latent(kind: str, sigma: float) -> None:
    rng = np.random.default_rng(0)
    x0, eps = rng.standard_normal((2, 1, 8))
    alpha_bar = 1 / (1 + sigma**2)
    vp = np.sqrt(alpha_bar) * x0 + np.sqrt(1 - alpha_bar) * eps
    t = sigma / (1 + sigma)
    sees, says = {
        "epsilon": (vp, eps),
        "v_prediction": (vp, np.sqrt(alpha_bar) * eps - np.sqrt(1 - alpha_bar) * x0),
        "sample": (vp, x0),
        "score": (x0 + sigma * eps, -eps / sigma),
        "edm": (
            (x0 + sigma * eps) / np.hypot(sigma, 0.5),
            (sigma / 0.5 * x0 - 0.5 * eps) / np.hypot(sigma, 0.5),
        ),
        "flow": ((1 - t) * x0 + t * eps, eps - x0),
    }[kind]

    def network(seen: np.ndarray, level: float) -> np.ndarray:
        np.testing.assert_allclose(seen, sees, rtol=1e-9, atol=1e-9)
        return says

    def once(m: Any, x: Any, sigmas: Any) -> Any:
        return m.denoise(x, sigmas[0])

    program = trace(once, schedules.explicit([sigma, 0.0]), kind)
    got = run(program, network, x0 + sigma * eps, lambda: x0)
    # x0 is the difference of numbers of the size of sigma
    np.testing.assert_allclose(got, x0, rtol=0, atol=1e-14 * (100 + sigma))


@pytest.mark.parametrize("kind", ["eps", "", None, 3, []])
def test_refuses_unknown_kinds(kind: Any) -> None:
    with pytest.raises(InvalidRequestError, match="allowed are epsilon, v_prediction, sample"):
        coefficients(kind)
