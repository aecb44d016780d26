"""Langevin dynamics at one noise level and annealed over many: without momentum, and with.

Letters: s the noise level; score = grad log p(x; s); z unit normal; eta, step a step size (the
update has drift eta and noise sqrt(2*eta)); alpha the paper's step where it differs; p a momentum,
unit normal in equilibrium.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, sqrt
from typing import Any

from ..checks import check_choice, refuse
from ..tracing.registry import sampler

__all__ = ["annealed_langevin", "langevin", "underdamped_langevin"]


@sampler(
    "unadjusted Langevin dynamics, one update per noise level",
    update="x + η·∇log p + √(2η)·z",
    paper="Roberts & Tweedie 1996, Bernoulli 2(4)",
)
def langevin(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    eta: float | None = None,
    coefficients: str = "textbook",
    denoise: bool = False,
) -> Any:
    """Roberts & Tweedie 1996, equation 2: unadjusted Langevin, one update at each of sigmas[:-1].

    x <- x + eta*score + sqrt(2*eta)*z leaves p(x; sigma) invariant up to O(eta). Meant for a
    schedule that repeats one sigma; see `tx.langevin`.

    eta: step size, default 0.1*sigma^2. denoise: end with the network's estimate of the clean
    latent.
    coefficients: "textbook", or "as-printed" for x <- x + sqrt(2*eta)*score + sqrt(eta)*z. That
    form has drift a = sqrt(2*eta) and noise b = sqrt(eta), and samples p^(1/T) at the temperature T
    = b^2/(2a) = sqrt(eta/8) instead of p: for small eta it sharpens p towards its modes.
    """
    for i, s in enumerate(sigmas[:-1]):
        drift, noise = _coefficients(0.1 * s * s if eta is None else eta, coefficients)
        x0 = m.denoise(x, s)
        x = x + drift * (x0 - x) / (s * s) + noise * m.noise()
        if denoise and i == len(sigmas) - 2:
            x = x0 = m.denoise(x, s)
        m.step(x, denoised=x0)
    return x


@sampler(
    "several Langevin updates at each noise level",
    update="n times x + ηₛ·∇log p + √(2ηₛ)·z at each s, ηₛ = step·s²",
    paper="Song & Ermon 2019, arXiv 1907.05600",
)
def annealed_langevin(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    n_steps: int = 3,
    step: float = 0.3,
    coefficients: str = "textbook",
    denoise: bool = True,
) -> Any:
    """Song & Ermon 2019 (NCSN), algorithm 1: n_steps Langevin updates at each of sigmas[:-1].

    step: eta_i = step*sigma_i^2. In the paper's letters alpha_i = 2*eta_i, so step =
    epsilon/(2*sigma_L^2) and n_steps is T. Each level has to forget the noise of the one before:
    keep (1 - step)^n_steps <= sigma_next/sigma.
    denoise: end with the network's estimate of the clean latent (Jolicoeur-Martineau et al. 2021,
    section 3.1).
    coefficients: "textbook", or "as-printed" for x <- x + sqrt(2*eta)*score + sqrt(eta)*z. That
    form samples p^(1/T) at each level instead of p, T = b^2/(2a) = sqrt(eta_i/8) with drift a =
    sqrt(2*eta_i) and noise b = sqrt(eta_i): the temperature depends on the level, and the drift
    overshoots (a > 2*sigma_i^2) where sigma_i < sqrt(step/2).
    """
    if n_steps < 1:
        refuse("n_steps", n_steps, "are integers >= 1")
    for i, s in enumerate(sigmas[:-1]):
        drift, noise = _coefficients(step * s * s, coefficients)
        for _ in range(n_steps):
            x0 = m.denoise(x, s)
            x = x + drift * (x0 - x) / (s * s) + noise * m.noise()
        if denoise and i == len(sigmas) - 2:
            x = x0 = m.denoise(x, s)
        m.step(x, denoised=x0)
    return x


@sampler(
    "Langevin dynamics with momentum, several updates at each noise level",
    update="v + ½δ·∇log p; x + ½δ·v; v·c + √(1 − c²)·z; x + ½δ·v; v + ½δ·∇log p",
    paper="Leimkuhler & Matthews 2013, arXiv 1203.5428",
)
def underdamped_langevin(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    n_steps: int = 2,
    step: float = 1.0,
    friction: float = 1.0,
    denoise: bool = True,
) -> Any:
    """Leimkuhler & Matthews 2013, BAOAB: n_steps updates with momentum at each of sigmas[:-1].

    dx = s*p dt, dp = s*score dt - friction*p dt + sqrt(2*friction) dw leaves p(x; s)*N(p; 0, I)
    invariant; time is counted in units in which pure noise of level s swings once in 2*pi. The
    cycle is written from its middle, B A O A, which visits the same x with one network run per
    update (Kieninger & Keller 2022). For Gaussians x has no discretisation bias at any step < 2.

    step: time step h. friction: in those units; exp(-friction*h) of the momentum outlasts an
    update, and where it is weak exp(-friction*h*n_steps/2) of the noise of the level before; keep
    that near sigma_next/sigma, or below. Infinite friction is overdamped Langevin with eta =
    (h*s)^2/2.
    denoise: end with the network's estimate of the clean latent.
    """
    if n_steps < 1:
        refuse("n_steps", n_steps, "are integers >= 1")
    if not 0.0 < step < 2.0:
        refuse("step", step, "are numbers between 0 and 2")
    if friction < 0.0:
        refuse("friction", friction, "are numbers >= 0")
    kept = exp(-friction * step)
    p = m.noise()
    for i, s in enumerate(sigmas[:-1]):
        for _ in range(n_steps):
            x0 = m.denoise(x, s)
            p = p + step * (x0 - x) / s
            x = x + step / 2 * s * p
            p = m.keep(kept * p + sqrt(1.0 - kept * kept) * m.noise())
            x = x + step / 2 * s * p
        if denoise and i == len(sigmas) - 2:
            x = x0 = m.denoise(x, s)
        m.step(x, denoised=x0)
    return x


def _coefficients(eta: float, coefficients: str) -> tuple[float, float]:
    """(drift, noise) of one update with step size eta."""
    check_choice("coefficients", coefficients, ("textbook", "as-printed"))
    if eta < 0.0:
        refuse("eta", eta, "are numbers >= 0")
    return (eta, sqrt(2 * eta)) if coefficients == "textbook" else (sqrt(2 * eta), sqrt(eta))
