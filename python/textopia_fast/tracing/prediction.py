"""What a network predicts, and how the clean latent follows from it.

Frame: x = x0 + sigma*eps (variance exploding), eps unit normal. Each kind gives the factor on x
that the network wants (`scale_in`) and x0 = c_skip*x + c_out*e for its output e. Karras et al.
2022, equation 7.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import NamedTuple

from ..checks import check_choice

__all__ = ["PREDICTIONS", "Coefficients", "coefficients"]


class Coefficients(NamedTuple):
    """Factors at one noise level."""

    scale_in: float
    c_skip: float
    c_out: float


def _epsilon(sigma: float) -> Coefficients:
    return Coefficients(1.0 / sqrt(1.0 + sigma * sigma), 1.0, -sigma)


def _v_prediction(sigma: float) -> Coefficients:
    # v = sqrt(alpha_bar)*eps - sqrt(1-alpha_bar)*x0 (Salimans & Ho 2022, appendix D).
    alpha = 1.0 / sqrt(1.0 + sigma * sigma)
    return Coefficients(alpha, alpha * alpha, -sigma * alpha)


def _sample(sigma: float) -> Coefficients:
    return Coefficients(1.0 / sqrt(1.0 + sigma * sigma), 0.0, 1.0)


def _score(sigma: float) -> Coefficients:
    # Tweedie: x0 = x + sigma^2 * grad log p(x; sigma).
    return Coefficients(1.0, 1.0, sigma * sigma)


def _flow(sigma: float) -> Coefficients:
    # y = (1-t)*x0 + t*eps with t = sigma/(1+sigma) is x/(1+sigma); the network gives eps - x0.
    return Coefficients(1.0 / (1.0 + sigma), 1.0 / (1.0 + sigma), -sigma / (1.0 + sigma))


def _edm(sigma: float) -> Coefficients:
    # Karras et al. 2022, table 1, with sigma_data = 0.5.
    root = sqrt(sigma * sigma + 0.25)
    return Coefficients(1.0 / root, 0.25 / (root * root), 0.5 * sigma / root)


PREDICTIONS: dict[str, Callable[[float], Coefficients]] = {
    "epsilon": _epsilon,
    "v_prediction": _v_prediction,
    "sample": _sample,
    "score": _score,
    "flow": _flow,
    "edm": _edm,
}


def coefficients(prediction: str) -> Callable[[float], Coefficients]:
    """The function sigma -> Coefficients of a prediction kind.

    Raises:
        InvalidRequestError: `prediction` is not one of `PREDICTIONS`.
    """
    return PREDICTIONS[check_choice("prediction", prediction, PREDICTIONS)]
