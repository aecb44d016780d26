"""ER-SDE solvers: the extended reverse SDE, whose noise follows a function of sigma.

Letters: s, t noise levels before and after a step; phi the noise scale function; d1, d2 slope and
curvature of x0 over sigma by divided differences.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import exp, log, sqrt
from typing import Any

import numpy as np

from ..checks import check_integer
from ..tracing.registry import sampler
from .euler import pairs

__all__ = ["er_sde"]


@sampler(
    "third order multistep on an SDE with little noise, one network run per step",
    update="(g_t/g_s)·x + (1 − g_t/g_s)·D + differences of D + noise, g = σ·(e^(σ^0.3) + 10)",
    paper="Cui et al. 2023, arXiv 2309.06169",
    schedule="karras",
)
def er_sde(m: Any, x: Any, sigmas: Sequence[float], order: int = 3, s_noise: float = 1.0) -> Any:
    """Cui et al. 2023 (ER-SDE), VE ER-SDE-Solver-1, -2, -3 by `order`; lower in the first steps."""
    check_integer("order", order, 1, 3)
    past: list[tuple[float, Any]] = []  # sigma and x0 of the last two steps, latest first
    d1_last: Any = None
    for s, t in pairs(sigmas):
        x0 = m.denoise(x, s)
        past = [p for p in past if p[0] != s][: order - 1]
        r = _phi(t) / _phi(s)
        x = r * x + (1 - r) * x0
        d1 = (x0 - past[0][1]) / (s - past[0][0]) if past else None
        if t > 0.0 and d1 is not None:
            x = x + _moment(0, s, t) * d1
            if len(past) == 2:
                d2 = 2 * (d1 - d1_last) / (s - past[1][0])
                x = x + _moment(1, s, t) * d2
        if s > t > 0.0:
            x = x + s_noise * sqrt(t * t - (s * r) ** 2) * m.noise(s, t)
        past, d1_last = [(s, x0), *past], d1
        m.step(x, denoised=x0)
    return x


def _phi(sigma: float) -> float:
    """Appendix A.8: between sigma, which gives the ODE, and sigma^2, which gives the SDE."""
    return sigma * (exp(sigma**0.3) + 10.0)


def _moment(k: int, s: float, t: float) -> float:
    """The integral of (sigma - s)^k*(phi(t)/phi(sigma) - 1) from t to s, in log sigma."""
    points, weights = _quadrature()
    sigma = np.exp((log(s) + log(t) + log(s / t) * points) / 2)
    ratio = _phi(t) / (sigma * (np.exp(sigma**0.3) + 10.0))
    return float(weights @ ((sigma - s) ** k * (ratio - 1.0) * sigma)) * log(s / t) / 2


@cache
def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Gauss and Legendre's points and weights; exact to 1e-15 over six decades of sigma."""
    return np.polynomial.legendre.leggauss(32)
