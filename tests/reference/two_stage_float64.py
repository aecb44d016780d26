"""Samplers with two network runs per step, and samplers of the reverse SDE, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from .samplers_float64 import Source


def split(s: float, t: float, eta: float) -> tuple[float, float]:
    variance = eta**2 * t**2 * (1 - t**2 / s**2)
    return float(np.sqrt(t**2 - variance)), float(np.sqrt(variance))


def dpm_2(
    x: np.ndarray, sigmas: Sequence[float], eps: Source, z: Source, eta: float = 0.0
) -> np.ndarray:
    """Lu et al. 2022 (DPM-Solver), algorithm 1: only the second slope counts, unless down is 0."""
    for s, t in pairwise(sigmas):
        down, up = split(s, t, eta)
        slope = eps()
        if down > 0:
            slope = eps()
        x = x + (down - s) * slope
        if up > 0:
            x = x + up * z()
    return x


def dpmpp_2s(x: np.ndarray, sigmas: Sequence[float], eps: Source, z: Source, eta: float):
    """Lu et al. 2022 (DPM-Solver++), algorithm 1, in lambda."""
    for s, t in pairwise(sigmas):
        down, up = split(s, t, eta)
        x0 = x - s * eps()
        if down > 0:
            h = np.log(s) - np.log(down)
            u = np.exp(-h / 2) * x - np.expm1(-h / 2) * x0
            x0 = u - s * np.exp(-h / 2) * eps()
            x = np.exp(-h) * x - np.expm1(-h) * x0
        else:
            x = x0
        if up > 0:
            x = x + up * z()
    return x


def dpmpp_sde(
    x: np.ndarray, sigmas: Sequence[float], eps: Source, z: Source, eta: float, r: float
) -> np.ndarray:
    """The two-stage rule with noise; both noises are read off one Brownian path W(sigma)."""
    for s, t in pairwise(sigmas):
        x0 = x - s * eps()
        if t == 0:
            return x0
        mid = np.exp((1 - r) * np.log(s) + r * np.log(t))
        path_mid = np.sqrt(s - mid) * z()
        path_end = path_mid + np.sqrt(mid - t) * z()
        down, up = split(s, mid, eta)
        u = x0 + down * (x - x0) / s + up * path_mid / np.sqrt(s - mid)
        x0_mid = u - mid * eps()
        mixed = x0 + (x0_mid - x0) / (2 * r)
        down, up = split(s, t, eta)
        x = mixed + down * (x - mixed) / s + up * path_end / np.sqrt(s - t)
    return x


def multistep_sde(
    x: np.ndarray,
    sigmas: Sequence[float],
    eps: Source,
    z: Source,
    eta: float,
    order: int,
    midpoint: bool = False,
) -> np.ndarray:
    """Integrates exp(-(1+eta)*(lambda_t - l))*(1+eta)*p(l) over l for a polynomial p through x0.

    With `midpoint` the linear part is taken at the middle of the step. 3M takes half of the
    quadratic term of its polynomial, as k-diffusion does.
    """
    outputs: list[np.ndarray] = []
    for i in range(len(sigmas) - 1):
        s, t = sigmas[i], sigmas[i + 1]
        outputs.append(x - s * eps())
        if t == 0:
            return outputs[-1]
        lam = [-np.log(sigma) for sigma in sigmas[: i + 2]]
        h = lam[-1] - lam[-2]
        points, weights = np.polynomial.legendre.leggauss(60)
        theta = (points + 1) / 2
        kernel = weights / 2 * (1 + eta) * h * np.exp(-(1 + eta) * h * (1 - theta))
        count = min(i + 1, order)
        x = np.exp(-(1 + eta) * h) * x + kernel.sum() * outputs[-1]
        if count > 1:
            slope = (outputs[-1] - outputs[-2]) / (lam[-2] - lam[-3])
            if count > 2:
                older = (outputs[-2] - outputs[-3]) / (lam[-3] - lam[-4])
                second = (slope - older) / (lam[-2] - lam[-4])
                slope = slope + second * (lam[-2] - lam[-3])
                x = x + kernel @ (theta * h) ** 2 / 2 * second
            lever = kernel.sum() * h / 2 if midpoint else kernel @ theta * h
            x = x + lever * slope
        if eta > 0:
            x = x + t * np.sqrt(-np.expm1(-2 * eta * h)) * z()
    return x


def flow(
    x: np.ndarray,
    sigmas: Sequence[float],
    eps: Source,
    z: Source,
    heun: bool = False,
    stochastic: bool = False,
) -> np.ndarray:
    """Lipman et al. 2023: dy/dtau = eps - x0 for y = (1-tau)*x0 + tau*eps."""
    y = x / (1 + sigmas[0])

    def estimate(y: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
        e = eps()
        x0 = (1 + sigma) * y - sigma * e
        return x0, e - x0

    for s, t in pairwise(sigmas):
        step = t / (1 + t) - s / (1 + s)
        x0, v = estimate(y, s)
        if stochastic:
            y = x0 / (1 + t) + (t / (1 + t) * z() if t > 0 else 0)
            continue
        if heun and t > 0:
            v = (v + estimate(y + step * v, t)[1]) / 2
        y = y + step * v
    return y
