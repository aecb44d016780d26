"""Quantiles of the beta distribution."""

from __future__ import annotations

from math import exp, lgamma

__all__ = ["inverse_beta"]


def inverse_beta(p: float, a: float, b: float) -> float:
    """The x with I_x(a, b) = p, for a, b > 0 and p in 0..1: bisection to the last bit."""
    if p <= 0.0 or p >= 1.0:
        return min(max(p, 0.0), 1.0)
    low, high = 0.0, 1.0
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return high
        if _regularized(middle, a, b) < p:
            low = middle
        else:
            high = middle


def _regularized(x: float, a: float, b: float) -> float:
    """I_x(a, b) by its power series (Abramowitz & Stegun 26.5.4), from the nearer end."""
    if x > 0.5:
        return 1.0 - _regularized(1.0 - x, b, a)
    total, term, n = 0.0, 1.0, 0
    while abs(term) > 1e-17 and n < 200:
        total += term / (a + n)
        n += 1
        term *= (n - b) / n * x
    return float(x**a) * total * exp(lgamma(a + b) - lgamma(a) - lgamma(b))
