"""Predictor-corrector sampling in the latents y = a*x of score_sde, step for step.

The formulas are those of its `sampling.py`, written down in y for discrete betas ("vp", reverse
diffusion and ancestral) and for a constant rate of beta, where its Euler-Maruyama step, which takes
the rate at the start of a step, equals ours, which takes the integral.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log, sqrt
from typing import Any

import numpy as np
import pytest

from tests.langevin.mixture import PLANE, Mixture
from textopia_fast.errors import InvalidRequestError
from textopia_fast.samplers import trace
from textopia_fast.samplers.predictor_corrector import predictor_corrector
from textopia_fast.tracing.reference import ArrayModel

STEPS, SNR, COUNT = 40, 0.16, 5
DISCRETE = np.linspace(0.1, 20.0, STEPS) / STEPS
CONSTANT = np.full(STEPS, 0.15)  # beta*dt of a step
VE_LEVELS = np.geomspace(0.05, 20.0, STEPS)


def levels_of(sde: str, alpha_bar: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(a, standard deviation of the noise in y) at each of the steps."""
    if sde == "ve":
        return np.ones(STEPS), VE_LEVELS
    a = np.sqrt(alpha_bar)
    return a, np.sqrt(1 - alpha_bar) if sde == "vp" else 1 - alpha_bar


def score_sde(
    sde: str,
    predictor: str,
    corrector: str,
    y: np.ndarray,
    draw: Callable[[], np.ndarray],
    norm: str,
    probability_flow: bool,
) -> np.ndarray:
    is_constant = predictor == "euler_maruyama" or sde == "subvp"
    alphas = np.exp(-CONSTANT) if is_constant else 1 - DISCRETE
    alpha_bar = np.cumprod(alphas)
    a, std = levels_of(sde, alpha_bar)
    half = 0.5 if probability_flow else 1.0
    for i in reversed(range(STEPS)):
        noise = std[i] ** 2 * np.eye(2)
        now = Mixture(PLANE.weights, a[i] * PLANE.means, a[i] ** 2 * PLANE.covariances + noise)
        alpha = 1.0 if sde == "ve" else alphas[i]
        if corrector != "none":
            g, z = now.score(y), draw()
            lengths = np.linalg.norm(z, axis=1), np.linalg.norm(g, axis=1)
            if norm == "batch":
                lengths = lengths[0].mean(), lengths[1].mean()
            ratio = SNR * lengths[0] / lengths[1] if corrector == "langevin" else SNR * std[i]
            step = np.reshape(2 * alpha * ratio**2, (-1, 1))
            y = y + step * g + np.sqrt(2 * step) * z
        score = now.score(y)
        if predictor == "none":
            mean, spread = y, 0.0
        elif sde == "ve":
            below = VE_LEVELS[i - 1] if i else 0.0
            difference = std[i] ** 2 - below**2
            if predictor == "euler_maruyama" and i:
                # sigma(t) = low*(high/low)^t has the rate 2*sigma^2*log(high/low)
                difference = 2 * std[i] ** 2 * log(VE_LEVELS[1] / VE_LEVELS[0])
            ratio = below / std[i] if predictor == "ancestral" else 1.0
            mean, spread = y + half * difference * score, sqrt(difference) * ratio
        elif is_constant:
            beta = CONSTANT[i]
            variance = beta * (1 - alpha_bar[i] ** 2) if sde == "subvp" else beta
            mean, spread = y + beta / 2 * y + half * variance * score, sqrt(variance)
        elif predictor == "reverse_diffusion":
            drift = sqrt(alphas[i]) * y - y
            mean, spread = y - (drift - half * DISCRETE[i] * score), sqrt(DISCRETE[i])
        else:
            mean, spread = (y + DISCRETE[i] * score) / sqrt(alphas[i]), sqrt(DISCRETE[i])
        y = mean
        if i and spread and not probability_flow:
            y = y + spread * draw()
    return y


def draws() -> Callable[[], np.ndarray]:
    rng = np.random.default_rng(3)
    return lambda: rng.standard_normal((COUNT, 2))


CASES = [
    ("ve", "reverse_diffusion"),
    ("ve", "euler_maruyama"),
    ("ve", "ancestral"),
    ("ve", "none"),
    ("vp", "reverse_diffusion"),
    ("vp", "euler_maruyama"),
    ("vp", "ancestral"),
    ("subvp", "reverse_diffusion"),
    ("subvp", "euler_maruyama"),
]


@pytest.mark.parametrize("probability_flow", [False, True])
@pytest.mark.parametrize(
    ("corrector", "norm"),
    [("langevin", "sample"), ("langevin", "batch"), ("ald", "sample"), ("none", "sample")],
)
@pytest.mark.parametrize(("sde", "predictor"), CASES)
def test_equals_score_sde(
    sde: str, predictor: str, corrector: str, norm: str, probability_flow: bool
) -> None:
    if probability_flow and predictor == "ancestral":
        with pytest.raises(InvalidRequestError, match="predictor"):
            trace(
                "predictor_corrector",
                [2.0, 1.0],
                predictor=predictor,
                probability_flow=True,
            )
        return
    is_constant = predictor == "euler_maruyama" or sde == "subvp"
    a, std = levels_of(sde, np.cumprod(np.exp(-CONSTANT) if is_constant else 1 - DISCRETE))
    levels = [*(std / a)[::-1].tolist(), 0.0]
    start = np.random.default_rng(2).standard_normal((COUNT, 2)) * std[-1]
    expected = score_sde(sde, predictor, corrector, start, draws(), norm, probability_flow)
    m = ArrayModel(lambda x, s: PLANE.smoothed(s).score(x), draws(), float, "score")
    got = predictor_corrector(
        m,
        start / a[-1],
        levels,
        predictor=predictor,
        corrector=corrector,
        snr=SNR,
        norm=norm,
        sde=sde,
        probability_flow=probability_flow,
    )
    # the last level is a = 1, where x is y; what 80 score evaluations in float64 leave
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"sde": "ou"}, "sde"),
        ({"predictor": "heun"}, "predictor"),
        ({"corrector": "mala"}, "corrector"),
        ({"sde": "subvp", "predictor": "ancestral"}, "predictor"),
        ({"norm": "image"}, "norm"),
        ({"snr": 0.0}, "snr"),
        ({"n_steps": -1}, "n_steps"),
    ],
)
def test_bad_options(options: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        trace("predictor_corrector", [2.0, 1.0, 0.0], **options)
    assert caught.value.details["param"] == param
