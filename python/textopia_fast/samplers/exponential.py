"""What exponential integrators have in common: phi functions and the weights made of them."""

from __future__ import annotations

from collections.abc import Sequence
from math import expm1, factorial

import numpy as np

__all__ = ["phi", "weights_at"]


def phi(k: int, z: float) -> float:
    """Hochbruck & Ostermann 2010, equation 2.10: phi_1 = (e^z - 1)/z, ... without cancellation.

    phi_k(0) = 1/k!, and phi_(k+1)(z) = (phi_k(z) - 1/k!)/z.
    """
    if abs(z) < 1.0:
        total, term = 0.0, 1.0 / factorial(k)
        for n in range(20):
            total += term
            term *= z / (n + k + 1)
        return total
    value = expm1(z) / z
    for j in range(1, k):
        value = (value - 1.0 / factorial(j)) / z
    return value


def weights_at(positions: Sequence[float], z: float) -> list[float]:
    """Weights of the differences f(r_j) - f(0) in the integral of e^((1-r)*z)*(f(r) - f(0)), 0..1.

    Exact for the polynomials that are 0 at 0 up to degree len(positions): the sum over j of
    w_j*r_j^k is k!*phi_(k+1)(z). Zhao et al. 2023 (UniPC), equation 11.
    """
    if not positions:
        return []
    r = np.asarray(positions)
    powers = r ** np.arange(1, len(r) + 1)[:, None]
    moments = [factorial(k) * phi(k + 1, z) for k in range(1, len(r) + 1)]
    return [float(weight) for weight in np.linalg.solve(powers, moments)]
