"""CFG++: the solvers of other files with the noise of the unconditional half put back.

Chung et al. 2024, arXiv 2406.08070: the clean latent is guided, x0 = u0 + g*(c0 - u0), the noise
that is added to it again is the unconditional one, (x - u0)/s. Guidance g stands between 0 and 1:
0.6 does what 7.5 does in classifier-free guidance.

Letters: s, t noise levels before and after a step; x0 the guided estimate of the clean latent, u0
the unconditional one.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, sqrt
from typing import Any

from ..checks import refuse
from ..tracing.registry import sampler
from .ddim import split, step_beta
from .euler import ancestral_split, pairs

__all__ = [
    "ddim_cfg_pp",
    "dpmpp_2m_cfg_pp",
    "dpmpp_2s_ancestral_cfg_pp",
    "euler_ancestral_cfg_pp",
    "euler_cfg_pp",
]


@sampler(
    "euler with CFG++: guidance 0 to 1, unconditional noise",
    update="D + t·(x − U)/s, U the unconditional estimate",
    paper="Chung et al. 2024, arXiv 2406.08070",
)
def euler_cfg_pp(m: Any, x: Any, sigmas: Sequence[float]) -> Any:
    """Chung et al. 2024, algorithm 2 in the frame x0 + sigma*eps."""
    for s, t in pairs(sigmas):
        x0, u0 = m.denoise_halves(x, s)
        x = x0 + t / s * (x - u0)
        m.step(x, denoised=x0)
    return x


@sampler(
    "euler_ancestral with CFG++",
    update="D + s↓·(x − U)/s + s↑·z",
    paper="Chung et al. 2024, arXiv 2406.08070",
    diffusers_class="EulerAncestralDiscreteScheduler",
)
def euler_ancestral_cfg_pp(
    m: Any, x: Any, sigmas: Sequence[float], eta: float = 1.0, s_noise: float = 1.0
) -> Any:
    """Chung et al. 2024, algorithm 2, down to sigma_down, then noise; eta is k-diffusion's."""
    for s, t in pairs(sigmas):
        x0, u0 = m.denoise_halves(x, s)
        sigma_down, sigma_up = ancestral_split(s, t, eta)
        x = x0 + sigma_down / s * (x - u0)
        if sigma_up > 0.0:
            x = x + s_noise * sigma_up * m.noise(s, t)
        m.step(x, denoised=x0)
    return x


@sampler(
    "ddim with CFG++",
    update="ddim with ε of the unconditional half",
    paper="Chung et al. 2024, arXiv 2406.08070",
    schedule="leading",
    diffusers_class="DDIMScheduler",
)
def ddim_cfg_pp(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    eta: float = 0.0,
    clip: float | None = None,
    targets: Sequence[float] | None = None,
) -> Any:
    """Chung et al. 2024, algorithm 2, with DDIM's noise by eta; clip, targets: as of `ddim`."""
    if targets is not None and len(targets) != len(sigmas) - 1:
        refuse("targets", targets, f"are {len(sigmas) - 1} numbers, one per step")
    if eta < 0.0:
        refuse("eta", eta, "are numbers >= 0")
    x = x * sqrt(split(sigmas[0])[0])
    for i, s in enumerate(sigmas[:-1]):
        t = sigmas[i + 1] if targets is None else targets[i]
        (a, b), (a_prev, b_prev) = split(s), split(t)
        x0, u0 = m.denoise_halves(x / sqrt(a), s)
        eps = (x - sqrt(a) * u0) / sqrt(b)
        if clip is not None:
            x0 = m.clamp(x0, -clip, clip)
        sd = eta * sqrt(max(b_prev / b * step_beta(s, t), 0.0))
        x = sqrt(a_prev) * x0 + sqrt(max(b_prev - sd * sd, 0.0)) * eps
        if sd > 0.0:
            x = x + sd * m.noise(s, t)
        m.step(x, denoised=x0)
    return x


@sampler(
    "dpmpp_2m with CFG++, one network run per step",
    update="dpmpp_2m with D in the step and U in the slope",
    paper="Chung et al. 2024, arXiv 2406.08070",
    schedule="karras",
)
def dpmpp_2m_cfg_pp(m: Any, x: Any, sigmas: Sequence[float]) -> Any:
    """Chung et al. 2024 on DPM-Solver++ 2M, with the slope of u0 as in the authors' own code."""
    u_last: Any = None
    h_last: float | None = None
    for s, t in pairs(sigmas):
        x0, u0 = m.denoise_halves(x, s)
        h = log(s / t) if t > 0.0 else None
        x = x0 + t / s * (x - u0)
        if h and h_last:
            r = h_last / h
            x = x + (1 - t / s) / (2 * r) * (u0 - u_last)
        u_last, h_last = u0, h
        m.step(x, denoised=x0)
    return x


@sampler(
    "dpmpp_2s_ancestral with CFG++, two network runs per step",
    update="dpmpp_2s_ancestral with U in both slopes",
    paper="Chung et al. 2024, arXiv 2406.08070",
    schedule="karras",
    diffusers_class="EulerAncestralDiscreteScheduler",
)
def dpmpp_2s_ancestral_cfg_pp(
    m: Any, x: Any, sigmas: Sequence[float], eta: float = 1.0, s_noise: float = 1.0
) -> Any:
    """Chung et al. 2024 on DPM-Solver++ 2S (r = 1/2): two steps of CFG++ from x; then noise."""
    for s, t in pairs(sigmas):
        x0, u0 = m.denoise_halves(x, s)
        sigma_down, sigma_up = ancestral_split(s, t, eta)
        y0, v0 = x0, u0
        if sigma_down > 0.0:
            mid = sqrt(s * sigma_down)
            y0, v0 = m.denoise_halves(x0 + mid / s * (x - u0), mid)
        x = y0 + sigma_down / s * (x - v0)
        if sigma_up > 0.0:
            x = x + s_noise * sigma_up * m.noise(s, t)
        m.step(x, denoised=x0)
    return x
