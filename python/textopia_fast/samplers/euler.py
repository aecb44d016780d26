"""Euler's method on the probability flow ODE, without and with ancestral noise.

Letters: s, t noise levels before and after a step; d the slope dx/dsigma; x0 the denoised latent.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import inf, sqrt
from typing import Any

from ..checks import refuse
from ..tracing.registry import sampler

__all__ = ["ancestral_split", "churned", "euler", "euler_ancestral", "pairs"]


@sampler(
    "first order, one network run per step, optional churn",
    update="x + (t − s)·d",
    paper="Karras et al. 2022, arXiv 2206.00364",
)
def euler(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = inf,
    s_noise: float = 1.0,
) -> Any:
    """Karras et al. 2022, algorithm 2 without its correction (lines 9-11).

    With churn the network sees the raised noise level, as in k-diffusion.
    """
    for s, t in pairs(sigmas):
        x, s = churned(m, x, s, len(sigmas) - 1, s_churn, s_tmin, s_tmax, s_noise)
        x0 = m.denoise(x, s)
        d = (x - x0) / s
        x = x + d * (t - s)
        m.step(x, denoised=x0)
    return x


@sampler(
    "first order with fresh noise in every step",
    update="x + (s↓ − s)·d + s↑·z, s↑² = η²·t²(s² − t²)/s², s↓² = t² − s↑²",
    paper="Song et al. 2021, arXiv 2011.13456",
    diffusers_class="EulerAncestralDiscreteScheduler",
)
def euler_ancestral(
    m: Any, x: Any, sigmas: Sequence[float], eta: float = 1.0, s_noise: float = 1.0
) -> Any:
    """Song et al. 2021 (score SDE), appendix F: ancestral sampling; eta is k-diffusion's."""
    for s, t in pairs(sigmas):
        x0 = m.denoise(x, s)
        sigma_down, sigma_up = ancestral_split(s, t, eta)
        d = (x - x0) / s
        x = x + d * (sigma_down - s)
        if sigma_up > 0.0:
            x = x + s_noise * sigma_up * m.noise(s, t)
        m.step(x, denoised=x0)
    return x


def pairs(sigmas: Sequence[float]) -> Iterator[tuple[float, float]]:
    """Neighbouring noise levels (s, t)."""
    return pairwise(sigmas)


def ancestral_split(s: float, t: float, eta: float) -> tuple[float, float]:
    """(sigma_down, sigma_up): go down to sigma_down, add sigma_up of fresh noise, and be at t."""
    if eta == 0.0:
        return t, 0.0
    if eta < 0.0:
        refuse("eta", eta, "are numbers >= 0")
    sigma_up = min(t, eta * sqrt(max(t * t * (s * s - t * t) / (s * s), 0.0)))
    return sqrt(max(t * t - sigma_up * sigma_up, 0.0)), sigma_up


def churned(
    m: Any, x: Any, s: float, n: int, s_churn: float, s_tmin: float, s_tmax: float, s_noise: float
) -> tuple[Any, float]:
    """x at a raised noise level, and that level: Karras et al. 2022, algorithm 2, lines 4-6."""
    gamma = min(s_churn / n, sqrt(2.0) - 1.0) if s_tmin <= s <= s_tmax else 0.0
    if gamma <= 0.0:
        return x, s
    s_hat = s * (gamma + 1.0)
    return x + s_noise * sqrt(s_hat * s_hat - s * s) * m.noise(), s_hat
