"""Langevin dynamics at one noise level, annealed over many, and as the corrector of a predictor.

Letters: s, t noise levels before and after a step; score = grad log p(x; s); z unit normal; eta,
step a step size (the update has drift eta and noise sqrt(2*eta)); alpha the paper's step where it
differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, sqrt
from typing import Any

from ..checks import check_choice, refuse
from .euler import pairs

__all__ = ["annealed_langevin", "langevin", "predictor_corrector"]

PREDICTORS = ("reverse_diffusion", "euler_maruyama", "ancestral", "none")
CORRECTORS = ("langevin", "ald", "none")


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


def predictor_corrector(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    predictor: str = "reverse_diffusion",
    corrector: str = "langevin",
    snr: float = 0.16,
    n_steps: int = 1,
    norm: str = "sample",
    denoise: bool = True,
) -> Any:
    """Song et al. 2021 (score SDE), algorithms 1, 2, 4: corrections, then a prediction, per level.

    predictor: "reverse_diffusion" (equation 46), "euler_maruyama", "ancestral" (equation 47) or
    "none".
    corrector: "langevin" (step from the norms, algorithm 4), "ald" (step 2*(snr*sigma)^2) or
    "none".
    snr: signal-to-noise ratio of the correction; the paper tunes it by data set (0.075-0.17 for
    images).
    norm: norms "sample" by image, or "batch": their means over the batch, as the reference code has
    it.
    denoise: leave out the noise of the last step.
    """
    check_choice("predictor", predictor, PREDICTORS)
    check_choice("corrector", corrector, CORRECTORS)
    for i, (s, t) in enumerate(pairs(sigmas)):
        x0 = None
        for _ in range(n_steps if corrector != "none" else 0):
            if corrector == "langevin":
                x = m.langevin_step(x, m.score(x, s), snr=snr, norm=norm)
            else:
                step = 2 * (snr * s) ** 2
                x = x + step * m.score(x, s) + sqrt(2 * step) * m.noise()
        if predictor != "none":
            x0 = m.denoise(x, s)
            score = (x0 - x) / (s * s)
            variance, noise = _prediction(predictor, s, t)
            x = x + variance * score
            if noise > 0.0 and not (denoise and i == len(sigmas) - 2):
                x = x + noise * m.noise()
        m.step(x, denoised=x0)
    return x


def _coefficients(eta: float, coefficients: str) -> tuple[float, float]:
    """(drift, noise) of one update with step size eta."""
    check_choice("coefficients", coefficients, ("textbook", "as-printed"))
    if eta < 0.0:
        refuse("eta", eta, "are numbers >= 0")
    return (eta, sqrt(2 * eta)) if coefficients == "textbook" else (sqrt(2 * eta), sqrt(eta))


def _prediction(predictor: str, s: float, t: float) -> tuple[float, float]:
    """(factor on the score, standard deviation of the noise) of a step from s to t.

    The drift-free VE equation dx = sqrt(d sigma^2/dtau) dw. "euler_maruyama" takes the rate for a
    geometric sequence of levels, d sigma^2 = 2*sigma^2 d log sigma, which has no value at 0; a step
    to 0 takes the difference.
    """
    difference = max(s * s - t * t, 0.0)
    if predictor == "reverse_diffusion":
        return difference, sqrt(difference)
    if predictor == "ancestral":
        return difference, sqrt(t * t * difference / (s * s))
    rate = 2 * s * s * max(log(s / t), 0.0) if t > 0.0 else difference
    return rate, sqrt(rate)
