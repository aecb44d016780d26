"""DPM-Solver++: exponential integrators in the log signal-to-noise ratio lambda = -log sigma."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any

from ..checks import refuse
from ..tracing.registry import sampler
from .euler import pairs

__all__ = ["dpmpp_2m"]


@sampler(
    "second order multistep, one network run per step: good at 15-25 steps",
    update="(t/s)·x + (1 − t/s)·(D + (D − D₋₁)·h/2h₋₁)",
    paper="Lu et al. 2022, arXiv 2211.01095",
    schedule="karras",
    diffusers_class="DPMSolverMultistepScheduler",
)
def dpmpp_2m(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    order: int = 2,
    euler_at_final: bool = False,
    result_scale: float = 1.0,
) -> Any:
    """Lu et al. 2022 (DPM-Solver++, arXiv 2211.01095), algorithm 2, "2M" with the midpoint rule.

    order: 2, or 1 for the first-order rule throughout (which is DDIM).
    euler_at_final: use the first-order rule for the last step even where it does not end at 0.
    result_scale: factor on the result, where diffusers holds latents in another frame.
    """
    if order not in (1, 2):
        refuse("order", order, "are 1, 2")
    x0_last: Any = None
    h_last: float | None = None
    for i, (s, t) in enumerate(pairs(sigmas)):
        last = i == len(sigmas) - 2
        x0 = m.denoise(x, s)
        h = log(s / t) if t > 0.0 else None
        if order == 1 or not h or not h_last or (last and euler_at_final):
            d = x0
        else:
            r = h_last / h
            d = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * x0_last
        x = (t / s) * x + (s - t) / s * d  # t/s = exp(-h)
        if last:
            x = result_scale * x
        x0_last, h_last = x0, h
        m.step(x, denoised=x0)
    return x
