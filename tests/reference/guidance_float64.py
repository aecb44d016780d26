"""Guidance and its corrections as their papers print them, in float64 NumPy.

Nothing here is shared with the package. The CFG++ functions are for networks that predict eps:
`eps()` gives the pair (unconditional, conditional), `z()` a draw; x is in the frame x0 + sigma*eps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]


def guided(pair: Pair, g: float) -> np.ndarray:
    """Ho & Salimans 2022, equation 6 with w = g - 1."""
    return g * pair[1] - (g - 1) * pair[0]


def rescaled(pair: Pair, g: float, phi: float) -> np.ndarray:
    """Lin et al. 2024, section 3.4, image by image."""
    out = []
    for negative, positive in zip(*pair, strict=True):
        x_cfg = guided((negative, positive), g)
        x_rescaled = x_cfg * (np.std(positive) / np.std(x_cfg))
        out.append(phi * x_rescaled + (1 - phi) * x_cfg)
    return np.stack(out)


def thresholded(x: np.ndarray, ratio: float, high: float) -> np.ndarray:
    """Saharia et al. 2022, section 2.3: the quantile by sorting, limited as diffusers limits it."""
    out = []
    for image in x:
        ordered = np.sort(np.abs(image), axis=None)
        at = ratio * (ordered.size - 1)
        below = int(np.floor(at))
        above = min(below + 1, ordered.size - 1)
        s = ordered[below] + (at - below) * (ordered[above] - ordered[below])
        s = min(max(s, 1.0), high)
        out.append(np.clip(image, -s, s) / s)
    return np.stack(out)


def ddim_cfg_pp(
    x: np.ndarray, sigmas: Sequence[float], eps: Callable, z: Callable, g: float, eta: float
) -> np.ndarray:
    """Chung et al. 2024, algorithm 2, in the variance-preserving frame; noise as in DDIM."""
    alpha = [1 / (1 + s * s) for s in sigmas]
    x = np.sqrt(alpha[0]) * x
    for a, a_prev in pairwise(alpha):
        pair = eps()
        clean = (x - np.sqrt(1 - a) * guided(pair, g)) / np.sqrt(a)
        variance = eta**2 * (1 - a_prev) / (1 - a) * (1 - a / a_prev)
        x = np.sqrt(a_prev) * clean + np.sqrt(1 - a_prev - variance) * pair[0]
        if variance > 0:
            x = x + np.sqrt(variance) * z()
    return x


def euler_cfg_pp(
    x: np.ndarray, sigmas: Sequence[float], eps: Callable, z: Callable, g: float
) -> np.ndarray:
    """Algorithm 2 again: the end of DDIM's frame divided by sqrt(alpha_bar)."""
    return ddim_cfg_pp(x, sigmas, eps, z, g, 0.0) * np.sqrt(1 + sigmas[-1] ** 2)


def euler_ancestral_cfg_pp(
    x: np.ndarray, sigmas: Sequence[float], eps: Callable, z: Callable, g: float, eta: float
) -> np.ndarray:
    """The same step to sigma_down, then noise of variance sigma_up^2."""
    for s, t in pairwise(sigmas):
        pair = eps()
        variance = eta**2 * t**2 * (1 - t**2 / s**2)
        x = x - s * guided(pair, g) + np.sqrt(t**2 - variance) * pair[0]
        if t > 0:
            x = x + np.sqrt(variance) * z()
    return x


def dpmpp_2m_cfg_pp(
    x: np.ndarray, sigmas: Sequence[float], eps: Callable, z: Callable, g: float
) -> np.ndarray:
    """The exponential integrator with an unconditional slope, over lambda = -log sigma."""
    lam = [-np.log(s) if s > 0 else np.inf for s in sigmas]
    last = None
    for i in range(len(sigmas) - 1):
        pair = eps()
        clean, unconditional = x - sigmas[i] * guided(pair, g), x - sigmas[i] * pair[0]
        h = lam[i + 1] - lam[i]
        new = clean + np.exp(-h) * (x - unconditional)
        if last is not None and np.isfinite(h):
            slope = (unconditional - last) / (lam[i] - lam[i - 1])
            new = new - np.expm1(-h) * slope * h / 2
        x, last = new, unconditional
    return x


def dpmpp_2s_ancestral_cfg_pp(
    x: np.ndarray, sigmas: Sequence[float], eps: Callable, z: Callable, g: float, eta: float
) -> np.ndarray:
    """Two steps from x, the second with what the network says at the middle in lambda."""
    for s, t in pairwise(sigmas):
        pair = eps()
        variance = eta**2 * t**2 * (1 - t**2 / s**2)
        down = np.sqrt(t**2 - variance)
        y, r = x, s
        if down > 0:
            r = np.exp((np.log(s) + np.log(down)) / 2)
            y = x - s * guided(pair, g) + r * pair[0]
            pair = eps()
        clean, unconditional = y - r * guided(pair, g), y - r * pair[0]
        x = clean + down / s * (x - unconditional)
        if t > 0:
            x = x + np.sqrt(variance) * z()
    return x
