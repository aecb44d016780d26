"""Heun's method on the probability flow ODE."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

from ..tracing.registry import sampler
from .euler import churned, pairs

__all__ = ["heun"]


@sampler(
    "second order, two network runs per step",
    update="x + (t − s)·(d + d′)/2, d′ at x + (t − s)·d and t",
    paper="Karras et al. 2022, arXiv 2206.00364",
    diffusers_class="HeunDiscreteScheduler",
)
def heun(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = inf,
    s_noise: float = 1.0,
    clip: float | None = None,
) -> Any:
    """Karras et al. 2022, algorithm 1 (2 with churn): the trapezoidal rule, Euler's at the end.

    clip: bound on the denoised latents, or None.
    """
    for s, t in pairs(sigmas):
        x, s = churned(m, x, s, len(sigmas) - 1, s_churn, s_tmin, s_tmax, s_noise)
        x0 = m.denoise(x, s)
        if clip is not None:
            x0 = m.clamp(x0, -clip, clip)
        d = (x - x0) / s
        y = x + d * (t - s)
        if t > 0.0:
            y0 = m.denoise(y, t)
            if clip is not None:
                y0 = m.clamp(y0, -clip, clip)
            x = x + (d + (y - y0) / t) / 2 * (t - s)
        else:
            x = y
        m.step(x, denoised=x0)
    return x
