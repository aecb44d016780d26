"""Linear multistep methods on the probability flow ODE at unequal steps.

Letters: s, t noise levels before and after a step; d the slope dx/dsigma; past the slopes so far
with their noise levels, latest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any

import numpy as np

from ..errors import InvalidRequestError
from ..tracing.registry import sampler
from .euler import pairs
from .exponential import weights_at
from .pndm import ADAMS_BASHFORTH

__all__ = ["deis", "gradient_estimation", "ipndm", "lms"]


@sampler(
    "multistep with slopes of up to four steps, one network run per step",
    update="x + Σ_j d₋ⱼ·∫ₛᵗ Lⱼ(σ)dσ, L the Lagrange basis in σ",
    paper="Zhang & Chen 2022, arXiv 2204.13902",
    diffusers_class="LMSDiscreteScheduler",
)
def lms(m: Any, x: Any, sigmas: Sequence[float], order: int = 4) -> Any:
    """Zhang & Chen 2022 (DEIS), "rhoAB" with rho = sigma: integrates a polynomial through slopes.

    order: how many slopes, 1 is Euler. At equal steps this is Adams-Bashforth.
    """
    if isinstance(order, bool) or not isinstance(order, int) or not 1 <= order <= 6:
        raise InvalidRequestError(f"lms: order {order!r}, allowed are 1..6.", param="order")
    past: list[tuple[float, Any]] = []
    for s, t in pairs(sigmas):
        x0 = m.denoise(x, s)
        d = (x - x0) / s
        past = [(s, d), *(p for p in past if p[0] != s)][:order]
        weights = lagrange_integrals([p[0] for p in past], s, t)
        x = x + sum(w * p[1] for w, p in zip(weights, past, strict=True))
        m.step(x, denoised=x0)
    return x


@sampler(
    "multistep with a polynomial in log sigma, one network run per step",
    update="x + Σ_j d₋ⱼ·∫ₛᵗ Lⱼ(log σ)dσ",
    paper="Zhang & Chen 2022, arXiv 2204.13902",
    diffusers_class="DEISMultistepScheduler",
)
def deis(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    order: int = 3,
    lower_order_final: bool = False,
    result_scale: float = 1.0,
) -> Any:
    """Zhang & Chen 2022 (DEIS), "tAB" in log rho: a polynomial in log sigma through the slopes.

    order: how many slopes, 1 to 3; fewer at the start, and at the end with lower_order_final.
    result_scale: factor on the result, where diffusers holds latents in another frame.
    """
    if order not in (1, 2, 3):
        raise InvalidRequestError(f"order: {order!r}, allowed are 1, 2, 3.", param="order")
    past: list[tuple[float, Any]] = []
    for i, (s, t) in enumerate(pairs(sigmas)):
        left = len(sigmas) - 2 - i
        x0 = m.denoise(x, s)
        d = (x - x0) / s
        past = [(s, d), *(p for p in past if p[0] != s)][:order]
        used = past[1 : left + 1] if lower_order_final else past[1:]
        x = x + d * (t - s)
        if 0.0 < t < s:
            h = log(s / t)
            weights = weights_at([log(s / p[0]) / h for p in used], h)
            x = x - sum(t * h * w * (p[1] - d) for w, p in zip(weights, used, strict=True))
        if left == 0:
            x = result_scale * x
        m.step(x, denoised=x0)
    return x


@sampler(
    "multistep with the fixed weights of equal steps",
    update="x + (t − s)·(55d − 59d₋₁ + 37d₋₂ − 9d₋₃)/24",
    paper="Zhang & Chen 2022, arXiv 2204.13902",
)
def ipndm(
    m: Any, x: Any, sigmas: Sequence[float], order: int = 4, from_pure_noise: bool = False
) -> Any:
    """Zhang & Chen 2022 (DEIS), "iPNDM": Adams-Bashforth's fixed weights, lower orders at first.

    from_pure_noise: the first slope is x/sigma, as where sigma is infinite.
    """
    if order not in (1, 2, 3, 4):
        raise InvalidRequestError(f"order: {order!r}, allowed are 1, 2, 3, 4.", param="order")
    past: list[Any] = []
    for s, t in pairs(sigmas):
        x0 = m.denoise(x, s)
        d = x / s if from_pure_noise and not past else (x - x0) / s
        past = [d, *past][:order]
        weights = ADAMS_BASHFORTH[len(past) - 1]
        x = x + sum((t - s) * w * d for w, d in zip(weights, past, strict=True))
        m.step(x, denoised=x0)
    return x


@sampler(
    "two-step method that corrects the last slope, one network run per step",
    update="x + (t − s)·(γ·d + (1 − γ)·d₋₁)",
    paper="Permenter & Yuan 2024, arXiv 2306.04848",
    schedule="karras",
)
def gradient_estimation(m: Any, x: Any, sigmas: Sequence[float], gamma: float = 2.0) -> Any:
    """Permenter & Yuan 2024, algorithm 2: a step along gamma*d + (1 - gamma)*d_last; x0 at the end.

    gamma: 1 is Euler, 2 the paper's choice.
    """
    d_last: Any = None
    for s, t in pairs(sigmas):
        x0 = m.denoise(x, s)
        d = (x - x0) / s
        mixed = d if d_last is None or t == 0.0 else gamma * d + (1 - gamma) * d_last
        x = x + (t - s) * mixed
        d_last = d
        m.step(x, denoised=x0)
    return x


def lagrange_integrals(nodes: Sequence[float], start: float, end: float) -> list[float]:
    """Integrals from start to end of the Lagrange polynomials of up to 6 distinct nodes, exact."""
    points, weights = np.polynomial.legendre.leggauss(3)
    at = (start + end) / 2 + (end - start) / 2 * points
    integrals = []
    for j, node in enumerate(nodes):
        values = np.ones_like(points)
        for k, other in enumerate(nodes):
            if k != j:
                values *= (at - other) / (node - other)
        integrals.append(float((end - start) / 2 * (weights @ values)))
    return integrals
