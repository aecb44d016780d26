"""DPM-Solver-fast: singlestep solvers of orders 1 to 3, each with all its runs inside of one step.

Letters: s, t noise levels before and after a step, h = log(s/t) the step in lambda = -log sigma;
eps the predicted noise; r1, r2 where the stages are, as shares of h.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, sqrt
from typing import Any

from ..checks import refuse
from ..tracing.registry import sampler
from .euler import ancestral_split, pairs
from .exponential import phi

__all__ = ["dpm_fast", "fast_orders"]


@sampler(
    "DPM-Solver of order 3 with three network runs in each step",
    update="steps of DPM-Solver-3 between levels equal in λ, one of order 1 or 2 at the end",
    paper="Lu et al. 2022, arXiv 2206.00927",
    schedule="exponential",
)
def dpm_fast(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    orders: Sequence[int] = (),
    eta: float = 0.0,
    s_noise: float = 1.0,
) -> Any:
    """Lu et al. 2022 (DPM-Solver), section 3.4: a step of each of `orders` between the levels.

    orders: 1 to 3 per step, as many network runs; third order until the last two of order 2 and 1
    unless given. eta: ancestral noise, as in k-diffusion.
    """
    orders = tuple(orders) or fast_orders(3 * len(sigmas) - 6)[1 - len(sigmas) :]
    if len(orders) != len(sigmas) - 1 or not set(orders) <= {1, 2, 3}:
        refuse("orders", orders, f"are {len(sigmas) - 1} integers 1..3")
    for (s, t), order in zip(pairs(sigmas), orders, strict=True):
        x0 = m.denoise(x, s)
        down = max(ancestral_split(s, t, eta)[0], sigmas[-1])
        if t == 0.0:
            x = x0
        elif down < s:
            x = _single(m, x, (x - x0) / s, s, down, order)
        if down < t:
            x = x + s_noise * sqrt(t * t - down * down) * m.noise(s, t)
        m.step(x, denoised=x0)
    return x


def fast_orders(runs: int) -> tuple[int, ...]:
    """Section 3.4: the orders of the steps that make so many network runs together."""
    full, rest = divmod(runs, 3)
    if rest:
        return (3,) * full + (rest,)
    return (3,) * (full - 1) + (2, 1)


def _single(m: Any, x: Any, eps: Any, s: float, t: float, order: int) -> Any:
    """Algorithms 1 and 2, and Euler's step (DPM-Solver-1): x at t, from x and eps at s."""
    h = log(s / t)
    end = x + (t - s) * eps
    if order == 1:
        return end
    if order == 2:
        r1 = 1 / 2
        return end - t * h * phi(1, h) / (2 * r1) * (_ahead(m, x, eps, s, s * (t / s) ** r1) - eps)
    r1, r2 = 1 / 3, 2 / 3
    s1, s2 = s * (t / s) ** r1, s * (t / s) ** r2
    d1 = _ahead(m, x, eps, s, s1) - eps
    u2 = x + (s2 - s) * eps - s2 * (r2 / r1) * (r2 * h) * phi(2, r2 * h) * d1
    d2 = (u2 - m.denoise(u2, s2)) / s2 - eps
    return end - t * h / r2 * phi(2, h) * d2


def _ahead(m: Any, x: Any, eps: Any, s: float, s1: float) -> Any:
    """eps at s1, where Euler's step from s leads."""
    u1 = x + (s1 - s) * eps
    return (u1 - m.denoise(u1, s1)) / s1
