"""The refined exponential solver: an exponential multistep method with corrected order conditions.

Letters: s, t noise levels before and after a step, h = log(s/down) the step in lambda = -log sigma;
c where the last output lies, in steps h from s.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any

from ..tracing.registry import sampler
from .euler import ancestral_split, pairs
from .exponential import phi

__all__ = ["res_multistep"]


@sampler(
    "second order multistep without the midpoint rule, noise by eta",
    update="(t/s)·x + h·(b₁·D + b₂·D₋₁), b from φ₁, φ₂ of −h",
    paper="Zhang et al. 2023, arXiv 2308.02157",
    schedule="karras",
)
def res_multistep(
    m: Any, x: Any, sigmas: Sequence[float], eta: float = 0.0, s_noise: float = 1.0
) -> Any:
    """Zhang et al. 2023 (RES), algorithm 2, second order multistep; eta is k-diffusion's.

    With noise the last output keeps its distance to where its step went down to.
    """
    x0_last = apart = None  # the last output, and how far its step went in lambda
    for s, t in pairs(sigmas):
        x0 = m.denoise(x, s)
        down, up = ancestral_split(s, t, eta)
        h = log(s / down) if down > 0.0 else None
        x = down / s * x + (1 - down / s) * x0
        if h and apart:
            c = -apart / h
            x = x + h * phi(2, -h) / c * (x0_last - x0)
        if up > 0.0:
            x = x + s_noise * up * m.noise(s, t)
        x0_last, apart = x0, h
        m.step(x, denoised=x0)
    return x
