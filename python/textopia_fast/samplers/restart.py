"""Restart: noise is added back, and removed again, on the way down.

Letters: s, t noise levels before and after a step; d the slope dx/dsigma; x0 the denoised latent.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

from ..checks import check_integer, refuse
from ..schedules.levels import karras_sigmas
from ..tracing.registry import sampler
from .euler import pairs

__all__ = ["restart"]


@sampler(
    "heun that goes back to a high noise level once or more on its way",
    update="heun; from `low` noise is added up to `high`, and again down, k times",
    paper="Xu et al. 2023, arXiv 2306.14878",
    schedule="karras",
)
def restart(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    low: float = 0.1,
    high: float = 2.0,
    k: int = 1,
    n_steps: int = 5,
    s_noise: float = 1.0,
) -> Any:
    """Xu et al. 2023 (Restart), algorithm 1: Heun's method, from `low` up to `high` again k times.

    low: t_min, taken at the nearest of `sigmas` above 0. high: t_max, at most the first of them.
    n_steps: Heun steps of each way down, spaced by Karras et al. 2022, equation 5.
    """
    check_integer("n_steps", n_steps, 1, 1000)
    if not 0.0 < low < high:
        refuse("low", low, f"are numbers with 0 < low < high = {high}")
    levels = [t for t in sigmas[1:] if t > 0.0]
    bottom = min(levels, key=lambda t: abs(t - low), default=0.0)
    top = min(high, sigmas[0])
    again = karras_sigmas(n_steps + 1, bottom, top)[:-1] if 0.0 < bottom < top else ()
    for s, t in pairs(sigmas):
        x, x0 = _heun(m, x, s, t)
        if again and t == bottom:
            for _ in range(k):
                x = x + s_noise * sqrt(top * top - t * t) * m.noise()
                for upper, lower in pairs((*again[:-1], t)):
                    x, x0 = _heun(m, x, upper, lower)
            again = ()
        m.step(x, denoised=x0)
    return x


def _heun(m: Any, x: Any, s: float, t: float) -> tuple[Any, Any]:
    """x after one step of Karras et al. 2022, algorithm 1, and x0 at its start."""
    x0 = m.denoise(x, s)
    d = (x - x0) / s
    y = x + d * (t - s)
    if t > 0.0:
        y = x + (d + (y - m.denoise(y, t)) / t) / 2 * (t - s)
    return y, x0
