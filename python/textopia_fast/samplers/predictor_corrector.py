"""Predictor-corrector sampling of the three equations of score_sde: VE, VP and sub-VP.

Their latents are y = a*x with a = 1 for VE, so in the frame x = x0 + s*eps all three are the same
equation dx = sqrt(d s^2/dtau) dw; what differs is how a step is discretised, which is done on y.
Letters: s, t noise levels before and after a step; a_s, a_t the factors there; score = grad log
p(x; s); z unit normal.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log, sqrt
from typing import Any

from ..checks import check_choice, refuse
from ..tracing.registry import sampler
from .euler import pairs

__all__ = ["predictor_corrector"]

SDES = ("ve", "vp", "subvp")
PREDICTORS = ("reverse_diffusion", "euler_maruyama", "ancestral", "none")
CORRECTORS = ("langevin", "ald", "none")


@sampler(
    "reverse diffusion steps with Langevin corrections in between",
    update="n times x + δ·∇log p + √(2δ)·z, δ = 2(snr·‖z‖/‖∇log p‖)²; then "
    "x + (s² − t²)·∇log p + √(s² − t²)·z",
    paper="Song et al. 2021, arXiv 2011.13456",
)
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
    sde: str = "ve",
    probability_flow: bool = False,
) -> Any:
    """Song et al. 2021 (score SDE), algorithms 1 to 5: corrections, then a prediction, per level.

    For users of score_sde: config.sampling's predictor, corrector, snr, n_steps_each (n_steps),
    noise_removal (denoise), probability_flow and the class of `sde` keep their meaning;
    predictor "ancestral_sampling" is "ancestral". Their noise levels are `exponential_sigmas` for
    VE and `vp_sigmas` for VP.

    predictor: "reverse_diffusion" (equation 46), "euler_maruyama", "ancestral" (equations 47 and
    4; not for "subvp") or "none".
    corrector: "langevin" (step from the norms, algorithms 4 and 5), "ald" (step
    2*alpha*(snr*sigma)^2) or "none". n_steps corrections per level.
    snr: signal-to-noise ratio of a correction; tuned by data set (0.075 to 0.17 for the paper's
    images). Each correction takes away about a share 2*snr^2 of the noise.
    norm: norms "sample" by image, or "batch": their means over the batch, as score_sde has it.
    denoise: leave out the noise of the last step.
    sde: "ve", "vp" or "subvp".
    probability_flow: half of the score and no noise in the predictor.
    """
    for name, value, allowed in (
        ("sde", sde, SDES),
        ("predictor", predictor, PREDICTORS),
        ("corrector", corrector, CORRECTORS),
    ):
        check_choice(name, value, allowed)
    if predictor == "ancestral" and (sde == "subvp" or probability_flow):
        refuse("predictor", predictor, "with this sde are reverse_diffusion, euler_maruyama, none")
    for i, (s, t) in enumerate(pairs(sigmas)):
        a_s, a_t = _scale(sde, s), _scale(sde, t)
        x0, alpha = None, (a_s / a_t) ** 2
        for _ in range(n_steps if corrector != "none" else 0):
            if corrector == "langevin":
                x = m.langevin_step(x, m.score(x, s), snr=snr, alpha=alpha, norm=norm)
            else:
                step = 2 * alpha * (snr * s) ** 2
                x = x + step * m.score(x, s) + sqrt(2 * step) * m.noise()
        if predictor != "none":
            x0 = m.denoise(x, s)
            keep, drift, noise = _prediction(sde, predictor, s, t, a_s, a_t)
            share = 0.5 if probability_flow else 1.0
            x = keep * x + share * drift * (x0 - x) / (s * s)
            if noise > 0.0 and not probability_flow and not (denoise and i == len(sigmas) - 2):
                x = x + noise * m.noise()
        m.step(x, denoised=x0)
    return x


def _scale(sde: str, s: float) -> float:
    """a with y = a*x: VP has variances a^2 + (a*s)^2 = 1, sub-VP has a*s = 1 - a^2."""
    if sde == "ve":
        return 1.0
    return 1 / sqrt(1 + s * s) if sde == "vp" else 2 / (s + sqrt(s * s + 4))


def _prediction(
    sde: str, predictor: str, s: float, t: float, a_s: float, a_t: float
) -> tuple[float, float, float]:
    """(factor on x, factor on the score, standard deviation of the noise) of a step from s to t."""
    difference, r = max(s * s - t * t, 0.0), a_s / a_t
    if predictor == "ancestral":  # the same drift of x for VE and VP; VP has beta*I as its noise
        variance = (1 - r * r) / a_t**2 if sde == "vp" else t * t * difference / (s * s)
        return 1.0, difference, sqrt(max(variance, 0.0))
    if sde == "ve":
        # The rate for a geometric sequence of levels, d s^2 = 2*s^2 d log s, which has no value at
        # 0; a step to 0 takes the difference.
        is_rate = predictor == "euler_maruyama" and t > 0.0
        variance = 2 * s * s * max(log(s / t), 0.0) if is_rate else difference
        return 1.0, variance, sqrt(variance)
    if predictor == "reverse_diffusion" and sde == "vp":
        beta = max(1 - r * r, 0.0)  # of DDPM: y - f = (2 - sqrt(1 - beta))*y, G^2 = beta
        keep, variance = 2 - r, beta
    else:
        # Euler-Maruyama with the integral of beta(tau) over the step. score_sde takes its value at
        # the start times the length; the two differ by a term of second order.
        beta = -2 * log(min(r, 1.0))
        keep = 1 + beta / 2
        variance = beta if sde == "vp" else beta * (1 - a_s**4)
    return keep * r, variance / (a_s * a_t), sqrt(variance) / a_t
