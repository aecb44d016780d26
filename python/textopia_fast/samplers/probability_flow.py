"""The probability-flow ODE dx/du = x - D(x; s), u = log s, by a method of high order.

Letters: s, t noise levels before and after a step; D the denoised latent; h the step in u; k the
slopes.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any

from ..tracing.registry import sampler
from .euler import pairs

__all__ = ["probability_flow"]


@sampler(
    "fourth order, four network runs per step",
    update="x + (t − s)·(k₁ + 2k₂ + 2k₃ + k₄)/6",
    paper="Song et al. 2021, arXiv 2011.13456",
)
def probability_flow(m: Any, x: Any, sigmas: Sequence[float]) -> Any:
    """Song et al. 2021 (score SDE), section 4.3: the ODE by Kutta's fixed step of order 4.

    Four network runs per step, even in log sigma; a step to 0 is the denoised latent. The same
    equation with one run per step is `euler`, with two `heun`, and `rk45` chooses its steps.
    """
    for s, t in pairs(sigmas):
        x0 = m.denoise(x, s)
        if t == 0.0:
            x = x0
        else:
            h, middle = log(s / t), (s * t) ** 0.5
            k1 = x - x0
            u = x - h / 2 * k1
            k2 = u - m.denoise(u, middle)
            u = x - h / 2 * k2
            k3 = u - m.denoise(u, middle)
            u = x - h * k3
            k4 = u - m.denoise(u, t)
            x = x - h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        m.step(x, denoised=x0)
    return x
