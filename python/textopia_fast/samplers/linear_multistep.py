"""Linear multistep methods on the probability flow ODE at unequal steps.

Letters: s, t noise levels before and after a step; d the slope dx/dsigma; past the slopes so far
with their noise levels, latest first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..errors import InvalidRequestError
from .euler import pairs

__all__ = ["lagrange_integrals", "lms"]


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


def lagrange_integrals(
    nodes: Sequence[float],
    start: float,
    end: float,
    of: Callable[[np.ndarray], np.ndarray] | None = None,
) -> list[float]:
    """Integrals from start to end of the Lagrange polynomials of distinct nodes, exact.

    of: the variable of the polynomials as a function of the variable of integration (then to about
    1e-14).
    """
    points, weights = np.polynomial.legendre.leggauss(3 if of is None else 24)
    at = (start + end) / 2 + (end - start) / 2 * points
    at = at if of is None else of(at)
    integrals = []
    for j, node in enumerate(nodes):
        values = np.ones_like(points)
        for k, other in enumerate(nodes):
            if k != j:
                values *= (at - other) / (node - other)
        integrals.append(float((end - start) / 2 * (weights @ values)))
    return integrals
