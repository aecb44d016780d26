"""Linear multistep methods on the probability flow ODE at unequal steps.

Letters: s, t noise levels before and after a step; d the slope dx/dsigma; past the slopes so far
with their noise levels, latest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, sqrt
from typing import Any

import numpy as np

from ..errors import InvalidRequestError
from .euler import pairs
from .exponential import weights_at
from .pndm import ADAMS_BASHFORTH

__all__ = ["deis", "ipndm", "lms"]


def lms(m: Any, x: Any, sigmas: Sequence[float], order: int = 4) -> Any:
    """Zhang & Chen 2022 (DEIS), "rhoAB" with rho = sigma: integrates a polynomial through slopes.

    order: how many slopes, 1 is Euler. At equal steps this is Adams-Bashforth.
    """
    if isinstance(order, bool) or not isinstance(order, int) or not 1 <= order <= 6:
        raise InvalidRequestError(f"lms: order {order!r}, allowed are 1..6.", param="order")
    past: list[tuple[float, Any]] = []
    for s, t in pairs(sigmas):
        x0 = m.denoise(x, s)
        d = (x - x0) / s
        past = [(s, d), *(p for p in past if p[0] != s)][:order]
        weights = lagrange_integrals([p[0] for p in past], s, t)
        x = x + sum(w * p[1] for w, p in zip(weights, past, strict=True))
        m.step(x, denoised=x0)
    return x


def deis(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    order: int = 3,
    lower_order_final: bool = False,
    vp_result: bool = False,
) -> Any:
    """Zhang & Chen 2022 (DEIS), "tAB" in log rho: a polynomial in log sigma through the slopes.

    order: how many slopes, 1 to 3; fewer at the start, and at the end with lower_order_final.
    vp_result: give back x*sqrt(alpha_bar), as diffusers does when the last sigma is not 0.
    """
    if order not in (1, 2, 3):
        raise InvalidRequestError(f"order: {order!r}, allowed are 1, 2, 3.", param="order")
    past: list[tuple[float, Any]] = []
    for i, (s, t) in enumerate(pairs(sigmas)):
        left = len(sigmas) - 2 - i
        x0 = m.denoise(x, s)
        d = (x - x0) / s
        past = [(s, d), *(p for p in past if p[0] != s)][:order]
        used = past[1 : left + 1] if lower_order_final else past[1:]
        x = x + d * (t - s)
        if 0.0 < t < s:
            h = log(s / t)
            weights = weights_at([log(s / p[0]) / h for p in used], h)
            x = x - sum(t * h * w * (p[1] - d) for w, p in zip(weights, used, strict=True))
        if left == 0 and vp_result:
            x = x / sqrt(1 + t * t)
        m.step(x, denoised=x0)
    return x


def ipndm(m: Any, x: Any, sigmas: Sequence[float], order: int = 4) -> Any:
    """Zhang & Chen 2022 (DEIS), "iPNDM": Adams-Bashforth's fixed weights, lower orders at first."""
    if order not in (1, 2, 3, 4):
        raise InvalidRequestError(f"order: {order!r}, allowed are 1, 2, 3, 4.", param="order")
    past: list[Any] = []
    for s, t in pairs(sigmas):
        x0 = m.denoise(x, s)
        past = [(x - x0) / s, *past][:order]
        weights = ADAMS_BASHFORTH[len(past) - 1]
        x = x + sum((t - s) * w * d for w, d in zip(weights, past, strict=True))
        m.step(x, denoised=x0)
    return x


def lagrange_integrals(nodes: Sequence[float], start: float, end: float) -> list[float]:
    """Integrals from start to end of the Lagrange polynomials of up to 6 distinct nodes, exact."""
    points, weights = np.polynomial.legendre.leggauss(3)
    at = (start + end) / 2 + (end - start) / 2 * points
    integrals = []
    for j, node in enumerate(nodes):
        values = np.ones_like(points)
        for k, other in enumerate(nodes):
            if k != j:
                values *= (at - other) / (node - other)
        integrals.append(float((end - start) / 2 * (weights @ values)))
    return integrals
