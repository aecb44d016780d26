"""Samplers as their papers print them, in float64 NumPy, for networks that predict eps.

Nothing here is shared with the package: other frames, other arrangements of the formulas. Each
function takes the noise levels sigma = sqrt((1 - alpha_bar)/alpha_bar), a source of network outputs
`eps()` and one of draws `z()`, and the initial latent x in the frame x0 + sigma*eps. Letters are
the papers'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

Source = Callable[[], np.ndarray]


def alpha_bar_of(sigma: float) -> float:
    return 1 / (sigma**2 + 1)


def euler(x: np.ndarray, sigmas: Sequence[float], eps: Source, z: Source) -> np.ndarray:
    """dx/dsigma = eps: Karras et al. 2022, equation 4 with s(t) = 1, sigma(t) = t."""
    for i in range(len(sigmas) - 1):
        x = x + (sigmas[i + 1] - sigmas[i]) * eps()
    return x


def churned_euler(
    x: np.ndarray, sigmas: Sequence[float], eps: Source, z: Source, s_churn: float, s_noise: float
) -> np.ndarray:
    """Karras et al. 2022, algorithm 2, lines 4-8."""
    n = len(sigmas) - 1
    for i in range(n):
        gamma = min(s_churn / n, np.sqrt(2) - 1)
        t_hat = sigmas[i] + gamma * sigmas[i]
        x = x + np.sqrt(t_hat**2 - sigmas[i] ** 2) * (s_noise * z())
        x = x + (sigmas[i + 1] - t_hat) * eps()
    return x


def heun(x: np.ndarray, sigmas: Sequence[float], eps: Source, z: Source) -> np.ndarray:
    """Karras et al. 2022, algorithm 1."""
    for i in range(len(sigmas) - 1):
        step = sigmas[i + 1] - sigmas[i]
        first = eps()
        x = x + (step * first if sigmas[i + 1] == 0 else step * (first + eps()) / 2)
    return x


def euler_ancestral(
    x: np.ndarray, sigmas: Sequence[float], eps: Source, z: Source, eta: float
) -> np.ndarray:
    """Deterministic part down to sigma_down, then noise of variance sigma_up^2."""
    for s, t in pairwise(sigmas):
        variance = eta**2 * t**2 * (1 - t**2 / s**2)
        down = np.sqrt(t**2 - variance)
        x0 = x - s * eps()
        x = x0 + down * ((x - x0) / s)
        if t > 0:
            x = x + np.sqrt(variance) * z()
    return x


def dpmpp_2m(x: np.ndarray, sigmas: Sequence[float], eps: Source, z: Source) -> np.ndarray:
    """Lu et al. 2022, algorithm 2, in the VP frame; the last step is of first order."""
    alpha = [np.sqrt(alpha_bar_of(s)) for s in sigmas]
    sigma = [np.sqrt(1 - alpha_bar_of(s)) if s > 0 else 0.0 for s in sigmas]
    lam = [np.log(a) - np.log(s) if s > 0 else np.inf for a, s in zip(alpha, sigma, strict=True)]
    x = x * alpha[0]
    outputs: list[np.ndarray] = []
    for i in range(1, len(sigmas)):
        outputs.append((x - sigma[i - 1] * eps()) / alpha[i - 1])
        h = lam[i] - lam[i - 1]
        d = outputs[-1]
        if i > 1 and sigma[i] > 0:
            r = (lam[i - 1] - lam[i - 2]) / h
            d = (1 + 1 / (2 * r)) * outputs[-1] - 1 / (2 * r) * outputs[-2]
        x = sigma[i] / sigma[i - 1] * x - alpha[i] * (np.exp(-h) - 1) * d
    return x / alpha[-1]


def ddim(x: np.ndarray, sigmas: Sequence[float], eps: Source, z: Source, eta: float) -> np.ndarray:
    """Song et al. 2021, equations 12 and 16, in the variance-preserving frame."""
    alpha = [alpha_bar_of(s) for s in sigmas]
    x = np.sqrt(alpha[0]) * x
    for a, a_prev in pairwise(alpha):
        e = eps()
        variance = eta**2 * (1 - a_prev) / (1 - a) * (1 - a / a_prev)
        predicted_x0 = (x - np.sqrt(1 - a) * e) / np.sqrt(a)
        direction = np.sqrt(1 - a_prev - variance) * e
        x = np.sqrt(a_prev) * predicted_x0 + direction
        if variance > 0:
            x = x + np.sqrt(variance) * z()
    return x


def ddpm(x: np.ndarray, sigmas: Sequence[float], eps: Source, z: Source, large: bool) -> np.ndarray:
    """Ho et al. 2020, algorithm 2: x <- (x - beta/sqrt(1-alpha_bar)*eps)/sqrt(alpha) + sd*z."""
    alpha_bar = [alpha_bar_of(s) for s in sigmas]
    x = np.sqrt(alpha_bar[0]) * x
    for bar, bar_prev in pairwise(alpha_bar):
        alpha = bar / bar_prev
        beta = 1 - alpha
        x = (x - beta / np.sqrt(1 - bar) * eps()) / np.sqrt(alpha)
        if bar_prev < 1:
            variance = beta if large else (1 - bar_prev) / (1 - bar) * beta
            x = x + np.sqrt(variance) * z()
    return x


def annealed_langevin(
    x: np.ndarray,
    sigmas: Sequence[float],
    eps: Source,
    z: Source,
    n_steps: int,
    step: float,
) -> np.ndarray:
    """Song & Ermon 2019, algorithm 1, score = -eps/sigma, with a clean last estimate."""
    for s in sigmas[:-1]:
        alpha = 2 * step * s**2
        for _ in range(n_steps):
            x = x + alpha / 2 * (-eps() / s) + np.sqrt(alpha) * z()
    return x - sigmas[-2] * eps()


def printed_langevin(
    x: np.ndarray, sigmas: Sequence[float], eps: Source, z: Source, eta: float
) -> np.ndarray:
    """x <- x + sqrt(2*eta)*score + sqrt(eta)*z."""
    for s in sigmas[:-1]:
        x = x + np.sqrt(2 * eta) * (-eps() / s) + np.sqrt(eta) * z()
    return x


def langevin(
    x: np.ndarray, sigmas: Sequence[float], eps: Source, z: Source, eta: float
) -> np.ndarray:
    """x <- x + eta*score + sqrt(2*eta)*z."""
    for s in sigmas[:-1]:
        x = x - eta / s * eps() + np.sqrt(2 * eta) * z()
    return x


def reverse_diffusion(
    x: np.ndarray, sigmas: Sequence[float], eps: Source, z: Source, snr: float | None = None
) -> np.ndarray:
    """Song et al. 2021, algorithm 2 (VE); with `snr` corrections of step 2*(snr*sigma)^2 before."""
    n = len(sigmas) - 1
    for i in range(n):
        s, t = sigmas[i], sigmas[i + 1]
        if snr is not None:
            epsilon = 2 * (snr * s) ** 2
            x = x + epsilon * (-eps() / s) + np.sqrt(2 * epsilon) * z()
        x = x + (s**2 - t**2) * (-eps() / s)
        if i < n - 1:
            x = x + np.sqrt(s**2 - t**2) * z()
    return x


def ancestral(x: np.ndarray, sigmas: Sequence[float], eps: Source, z: Source) -> np.ndarray:
    """Song et al. 2021, equation 47."""
    n = len(sigmas) - 1
    for i in range(n):
        s, t = sigmas[i], sigmas[i + 1]
        x = x + (s**2 - t**2) * (-eps() / s)
        if i < n - 1:
            x = x + np.sqrt(t**2 * (s**2 - t**2) / s**2) * z()
    return x


def euler_maruyama(x: np.ndarray, sigmas: Sequence[float], eps: Source, z: Source) -> np.ndarray:
    """Reverse VE-SDE, g(t) = sigma(t)*sqrt(2*log(sigma_max/sigma_min)), n-1 equal steps of t."""
    n = len(sigmas) - 1
    for i in range(n):
        s = sigmas[i]
        if sigmas[i + 1] == 0:
            return x - s * eps()
        g2_dt = s**2 * 2 * np.log(sigmas[0] / sigmas[n - 1]) / (n - 1)
        x = x + g2_dt * (-eps() / s) + np.sqrt(g2_dt) * z()
    return x


def langevin_step(
    x: np.ndarray, score: np.ndarray, z: np.ndarray, snr: float, alpha: float, batch: bool
) -> np.ndarray:
    """Song et al. 2021, algorithms 4 and 5: epsilon = 2*alpha*(snr*|z|/|g|)^2, image by image."""
    z_norm = [np.linalg.norm(image) for image in z]
    g_norm = [np.linalg.norm(image) for image in score]
    if batch:
        z_norm, g_norm = [np.mean(z_norm)] * len(x), [np.mean(g_norm)] * len(x)
    out = np.empty_like(x)
    for k in range(len(x)):
        epsilon = 2 * alpha * (snr * z_norm[k] / g_norm[k]) ** 2
        out[k] = x[k] + epsilon * score[k] + np.sqrt(2 * epsilon) * z[k]
    return out
