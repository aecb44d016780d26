"""Samplers of distilled models whose network maps any noise level to the clean latent.

Letters: s, t noise levels before and after a step; x is in the variance-preserving frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

from ..checks import refuse
from ..tracing.registry import sampler
from .euler import pairs

__all__ = ["lcm", "tcd"]

_SIGMA_DATA = 0.5


@sampler(
    "for latent consistency models: 1 to 8 steps with fresh noise",
    update="D + t·z",
    paper="Luo et al. 2023, arXiv 2310.04378",
    schedule="trailing",
    diffusers_class="LCMScheduler",
)
def lcm(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    timesteps: Sequence[float] | None = None,
    timestep_scaling: float | None = None,
    clip: float | None = None,
) -> Any:
    """Luo et al. 2023 (LCM), algorithm 3: jump to the clean latent, add noise for the next level.

    timestep_scaling: of the boundary condition c_skip*x + c_out*x0 (section 4.1) at the schedule's
    timesteps; None leaves it out. clip: bound on x0, or None.
    """
    x = x / sqrt(1 + sigmas[0] ** 2)
    for i, (s, t) in enumerate(pairs(sigmas)):
        x0 = m.denoise(x * sqrt(1 + s * s), s)
        if clip is not None:
            x0 = m.clamp(x0, -clip, clip)
        if timestep_scaling is not None and timesteps is not None:
            scaled = timestep_scaling * timesteps[i]
            root = sqrt(scaled**2 + _SIGMA_DATA**2)
            x0 = scaled / root * x0 + (_SIGMA_DATA / root) ** 2 * x
        x = x0 / sqrt(1 + t * t)
        if t > 0.0:
            x = x + t / sqrt(1 + t * t) * m.noise()
        m.step(x, denoised=x0)
    return x


@sampler(
    "for trajectory consistency models: 1 to 8 steps, noise by eta",
    update="ddim to a level u below t by γ, then noise up to t",
    paper="Zheng et al. 2024, arXiv 2402.19159",
    schedule="trailing",
    diffusers_class="TCDScheduler",
)
def tcd(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    targets: Sequence[float] | None = None,
    eta: float = 0.3,
) -> Any:
    """Zheng et al. 2024 (TCD), algorithm 4: jump below the next level, add noise up to it.

    targets: the levels to jump to (diffusers' timesteps (1 - eta)*t), (1 - eta)*sigmas[1:] unless
    given. eta: the paper's gamma, 0 is deterministic. No noise in the last step.
    """
    if not 0.0 <= eta <= 1.0:
        refuse("eta", eta, "are numbers 0..1")
    x = x / sqrt(1 + sigmas[0] ** 2)
    for i, (s, t) in enumerate(pairs(sigmas)):
        u = (1 - eta) * t if targets is None else targets[i]
        x0 = m.denoise(x * sqrt(1 + s * s), s)
        eps = (x * sqrt(1 + s * s) - x0) / s
        x = (x0 + u * eps) / sqrt(1 + u * u)
        if u < t and i < len(sigmas) - 2:
            # alpha_bar(t)/alpha_bar(u) of the latent stays
            kept = (1 + u * u) / (1 + t * t)
            x = sqrt(kept) * x + sqrt(1 - kept) * m.noise()
        m.step(x, denoised=x0)
    return x
