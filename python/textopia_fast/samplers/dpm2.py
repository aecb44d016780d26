"""DPM-Solver-2: the midpoint rule at the geometric mean of two noise levels.

Letters: s, t noise levels before and after a step, mid the one between; d the slope dx/dsigma.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, sqrt
from typing import Any

from ..tracing.registry import sampler
from .euler import ancestral_split, churned, pairs

__all__ = ["dpm_2", "dpm_2_ancestral", "dpmpp_2s_ancestral"]


@sampler(
    "second order midpoint rule, two network runs per step",
    update="x + (t − s)·d(x + (m − s)·d; m), m = √(s·t)",
    paper="Lu et al. 2022, arXiv 2206.00927",
    diffusers_class="KDPM2DiscreteScheduler",
)
def dpm_2(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = inf,
    s_noise: float = 1.0,
) -> Any:
    """Lu et al. 2022 (DPM-Solver), algorithm 1 with r1 = 1/2 in sigma, with the churn of Karras."""
    for s, t in pairs(sigmas):
        x, s = churned(m, x, s, len(sigmas) - 1, s_churn, s_tmin, s_tmax, s_noise)
        x0 = m.denoise(x, s)
        x = _midpoint_step(m, x, s, t, x0)
        m.step(x, denoised=x0)
    return x


@sampler(
    "dpm_2 with fresh noise in every step",
    update="dpm_2 down to s↓, then + s↑·z",
    paper="Lu et al. 2022, arXiv 2206.00927",
    diffusers_class="KDPM2AncestralDiscreteScheduler",
)
def dpm_2_ancestral(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    eta: float = 1.0,
    s_noise: float = 1.0,
    mid_apart: bool = False,
) -> Any:
    """Lu et al. 2022 (DPM-Solver), algorithm 1, down to sigma_down; noise as in ancestral sampling.

    eta: 0 is deterministic, 1 has the noise of ancestral sampling (k-diffusion).
    mid_apart: keep mid a hair off t, where eta = 1 puts it, so that the network is not told the
    rounded timestep of t there (diffusers with Karras sigmas).
    """
    for s, t in pairs(sigmas):
        x0 = m.denoise(x, s)
        sigma_down, sigma_up = ancestral_split(s, t, eta)
        x = _midpoint_step(m, x, s, sigma_down, x0, 1 + 2.0**-44 if mid_apart else 1.0)
        if sigma_up > 0.0:
            x = x + s_noise * sigma_up * m.noise(s, t)
        m.step(x, denoised=x0)
    return x


@sampler(
    "second order with fresh noise, two network runs per step",
    update="(s↓/s)·x + (1 − s↓/s)·D(u; m) + s↑·z, u one such step to m = √(s·s↓)",
    paper="Lu et al. 2022, arXiv 2211.01095",
    schedule="karras",
    diffusers_class="KDPM2AncestralDiscreteScheduler",
)
def dpmpp_2s_ancestral(
    m: Any, x: Any, sigmas: Sequence[float], eta: float = 1.0, s_noise: float = 1.0
) -> Any:
    """Lu et al. 2022 (DPM-Solver++), algorithm 1 with r = 1/2, down to sigma_down; then noise."""
    for s, t in pairs(sigmas):
        x0 = m.denoise(x, s)
        sigma_down, sigma_up = ancestral_split(s, t, eta)
        d = x0
        if sigma_down > 0.0:
            mid = sqrt(s * sigma_down)
            d = m.denoise(mid / s * x + (s - mid) / s * x0, mid)
        x = sigma_down / s * x + (s - sigma_down) / s * d
        if sigma_up > 0.0:
            x = x + s_noise * sigma_up * m.noise(s, t)
        m.step(x, denoised=x0)
    return x


def _midpoint_step(m: Any, x: Any, s: float, t: float, x0: Any, mid_factor: float = 1.0) -> Any:
    """From s to t with the slope at their geometric mean; Euler's step to 0."""
    d = (x - x0) / s
    if t > 0.0:
        mid = sqrt(s * t) * mid_factor
        y = x + d * (mid - s)
        d = (y - m.denoise(y, mid)) / mid
    return x + d * (t - s)
