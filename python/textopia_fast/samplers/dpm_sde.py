"""DPM-Solver++ on the reverse SDE: exponential integrators in lambda = -log sigma, with noise.

Letters: s, t noise levels before and after a step, h = log(s/t) the step in lambda; eta scales the
noise (0 is deterministic, 1 the reverse SDE); q = exp(-(1+eta)*h), what remains of x.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, sqrt
from typing import Any

from ..checks import refuse
from ..errors import InvalidRequestError
from ..tracing.registry import sampler
from .euler import ancestral_split, pairs
from .exponential import phi

__all__ = ["dpmpp_2m_sde", "dpmpp_3m_sde", "dpmpp_sde"]


@sampler(
    "second order on the reverse SDE, two network runs per step",
    update="as dpmpp_2s_ancestral, with noise in the first stage, too",
    paper="Lu et al. 2022, arXiv 2211.01095",
    schedule="karras",
)
def dpmpp_sde(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    eta: float = 1.0,
    s_noise: float = 1.0,
    r: float = 0.5,
) -> Any:
    """Lu et al. 2022 (DPM-Solver++), algorithm 1 ("2S") with ancestral noise in both stages.

    r: where the first stage ends, as a share of h. The noise of both is one Brownian motion over
    sigma, as in k-diffusion: z, over (s, t), contains z_mid, over (s, mid).
    """
    if not 0.0 < r < 1.0:
        raise InvalidRequestError(f"r: {r!r}, allowed are numbers between 0 and 1.", param="r")
    for s, t in pairs(sigmas):
        x0 = m.denoise(x, s)
        if t == 0.0 or t == s:
            x = x0 if t == 0.0 else x
            m.step(x, denoised=x0)
            continue
        mid = s ** (1 - r) * t**r
        down, up = ancestral_split(s, mid, eta)
        z_mid = m.noise(s, mid)
        y = down / s * x + (s - down) / s * x0 + s_noise * up * z_mid
        d = (1 - 1 / (2 * r)) * x0 + 1 / (2 * r) * m.denoise(y, mid)
        down, up = ancestral_split(s, t, eta)
        share = (s - mid) / (s - t)
        z = sqrt(share) * z_mid + sqrt(1 - share) * m.noise(mid, t)
        x = down / s * x + (s - down) / s * d + s_noise * up * z
        m.step(x, denoised=x0)
    return x


@sampler(
    "second order multistep on the reverse SDE, one network run per step",
    update="e^(−(1+η)h)·x + (1 − e^(−(1+η)h))·(D + (D − D₋₁)·h/2h₋₁) + t·√(1 − e^(−2ηh))·z",
    paper="Lu et al. 2022, arXiv 2211.01095",
    schedule="karras",
    diffusers_class="DPMSolverMultistepScheduler",
)
def dpmpp_2m_sde(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    eta: float = 1.0,
    s_noise: float = 1.0,
    solver_type: str = "midpoint",
    order: int = 2,
    euler_at_final: bool = False,
    result_scale: float = 1.0,
) -> Any:
    """Lu et al. 2022 (DPM-Solver++), appendix D: "SDE-DPM-Solver++(2M)", with any eta.

    solver_type: how the second order term is integrated, "midpoint" or "heun" (exactly).
    order, euler_at_final, result_scale: as for `dpmpp_2m`.
    """
    _check_solver_type(solver_type)
    x0_last = h_last = None
    for i, (s, t) in enumerate(pairs(sigmas)):
        last = i == len(sigmas) - 2
        x0 = m.denoise(x, s)
        h = log(s / t) if t > 0.0 else None
        q = (t / s) ** (1 + eta)
        new = q * x + (1 - q) * x0
        if order > 1 and h and h_last and not (last and euler_at_final):
            u = (1 + eta) * h
            weight = (1 - q) / 2 if solver_type == "midpoint" else u * phi(2, -u)
            new = new + weight * h / h_last * (x0 - x0_last)
        x = _with_noise(m, new, s, t, eta, s_noise)
        if last:
            x = result_scale * x
        x0_last, h_last = x0, h
        m.step(x, denoised=x0)
    return x


@sampler(
    "third order multistep on the reverse SDE, one network run per step",
    update="the same with first and second differences of D",
    paper="Lu et al. 2022, arXiv 2211.01095",
    schedule="exponential",
)
def dpmpp_3m_sde(
    m: Any, x: Any, sigmas: Sequence[float], eta: float = 1.0, s_noise: float = 1.0
) -> Any:
    """Lu et al. 2022 (DPM-Solver++), appendix D, with three outputs as k-diffusion has it.

    d1, d2: slope and curvature of x0 over lambda by divided differences, times h and h^2.
    """
    past: list[tuple[float, Any]] = []  # lambda and x0 of the last two steps, latest first
    for s, t in pairs(sigmas):
        x0 = m.denoise(x, s)
        h = log(s / t) if t > 0.0 else None
        q = (t / s) ** (1 + eta)
        new = q * x + (1 - q) * x0
        here = -log(s)
        past = [p for p in past if p[0] != here]
        if h and past:
            u = (1 + eta) * h
            d1 = (x0 - past[0][1]) * (h / (here - past[0][0]))
            if len(past) == 2:
                older = (past[0][1] - past[1][1]) * (h / (past[0][0] - past[1][0]))
                d2 = (d1 - older) * (h / (here - past[1][0]))
                d1 = d1 + d2 * ((here - past[0][0]) / h)
                new = new + u * phi(3, -u) * d2
            new = new + u * phi(2, -u) * d1
        x = _with_noise(m, new, s, t, eta, s_noise)
        past = [(here, x0), *past][:2]
        m.step(x, denoised=x0)
    return x


def _with_noise(m: Any, x: Any, s: float, t: float, eta: float, s_noise: float) -> Any:
    if eta < 0.0:
        refuse("eta", eta, "are numbers >= 0")
    sd = t * sqrt(max(1 - (t / s) ** (2 * eta), 0.0)) * s_noise
    return x + sd * m.noise(s, t) if sd > 0.0 else x


def _check_solver_type(solver_type: str) -> None:
    if solver_type not in ("midpoint", "heun"):
        raise InvalidRequestError(
            f"solver_type: {solver_type!r}, allowed are midpoint, heun.", param="solver_type"
        )
