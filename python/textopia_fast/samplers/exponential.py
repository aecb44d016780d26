"""The phi functions of exponential integrators."""

from __future__ import annotations

from math import expm1, factorial

__all__ = ["phi"]


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
