"""DDIM and DDPM, in the variance-preserving letters of their papers.

Letters: a = alpha_bar = 1/(1+sigma^2) at the present step, a_prev at the one stepped to; b = 1 - a.
Here x is sqrt(a)*x0 + sqrt(b)*eps; the network sees x/sqrt(a), which is a scale and costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

from ..checks import check_choice, refuse
from ..tracing.registry import sampler
from .euler import pairs

__all__ = ["ddim", "ddpm", "split", "step_beta"]


@sampler(
    "first order, deterministic at eta = 0",
    update="a_t·D + √(1 − a_t² − v²)·ε + v·z, v = η·(standard deviation of the posterior)",
    paper="Song, Meng & Ermon 2021, arXiv 2010.02502",
    schedule="leading",
    diffusers_class="DDIMScheduler",
)
def ddim(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    eta: float = 0.0,
    clip: float | None = None,
    targets: Sequence[float] | None = None,
    threshold: Sequence[float] | None = None,
) -> Any:
    """Song, Meng & Ermon 2021 (DDIM), equations 12 and 16; the paper's alpha is a here.

    eta: 0 is deterministic, 1 has the variance of DDPM. clip: bound on x0, or None; threshold:
    (ratio, high) of dynamic thresholding instead. eps stays the network's with both.
    targets: the noise levels to step to, sigmas[1:] unless given (diffusers' timesteps t - T//n).
    """
    if targets is not None and len(targets) != len(sigmas) - 1:
        refuse("targets", targets, f"are {len(sigmas) - 1} numbers, one per step")
    if eta < 0.0:
        refuse("eta", eta, "are numbers >= 0")
    x = x * sqrt(split(sigmas[0])[0])
    for i, s in enumerate(sigmas[:-1]):
        t = sigmas[i + 1] if targets is None else targets[i]
        (a, b), (a_prev, b_prev) = split(s), split(t)
        x0 = m.denoise(x / sqrt(a), s)
        eps = (x - sqrt(a) * x0) / sqrt(b)
        if threshold is not None:
            x0 = m.threshold(x0, *threshold)
        elif clip is not None:
            x0 = m.clamp(x0, -clip, clip)
        sd = eta * sqrt(max(b_prev / b * step_beta(s, t), 0.0))
        x = sqrt(a_prev) * x0 + sqrt(max(b_prev - sd * sd, 0.0)) * eps
        if sd > 0.0:
            x = x + sd * m.noise(s, t)
        m.step(x, denoised=x0)
    return x


@sampler(
    "the ancestral sampler of the training process; needs many steps",
    update="mean and noise of q(x_t given x_s, x₀ = D)",
    paper="Ho, Jain & Abbeel 2020, arXiv 2006.11239",
    schedule="leading",
    diffusers_class="DDPMScheduler",
)
def ddpm(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    variance: str = "fixed_small",
    clip: float | None = None,
) -> Any:
    """Ho, Jain & Abbeel 2020 (DDPM), algorithm 2 with the posterior mean of equation 7.

    variance: "fixed_small" (the posterior's) or "fixed_large" (beta); no noise in a step to 0.
    """
    check_choice("variance", variance, ("fixed_small", "fixed_large"))
    x = x * sqrt(split(sigmas[0])[0])
    for s, t in pairs(sigmas):
        (a, b), (a_prev, b_prev) = split(s), split(t)
        beta = step_beta(s, t)
        x0 = m.denoise(x / sqrt(a), s)
        if clip is not None:
            x0 = m.clamp(x0, -clip, clip)
        x = sqrt(a_prev) * beta / b * x0 + sqrt(a / a_prev) * b_prev / b * x
        sd = sqrt(max(beta * (b_prev / b if variance == "fixed_small" else 1.0), 0.0))
        if t > 0.0 and sd > 0.0:
            x = x + sd * m.noise(s, t)
        m.step(x, denoised=x0)
    return x


def split(sigma: float) -> tuple[float, float]:
    """(alpha_bar, 1 - alpha_bar), the second without cancellation."""
    return 1.0 / (1.0 + sigma * sigma), sigma * sigma / (1.0 + sigma * sigma)


def step_beta(s: float, t: float) -> float:
    """1 - alpha_bar(s)/alpha_bar(t): the beta of the whole step."""
    return (s * s - t * t) / (1.0 + s * s)
