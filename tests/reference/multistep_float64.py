"""Multistep samplers as their papers print them; see samplers_float64 for the conventions."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from .samplers_float64 import Source, alpha_bar_of


def transfer(x: np.ndarray, s: float, t: float, eps: np.ndarray) -> np.ndarray:
    """Liu et al. 2022, equation 9, in the variance-preserving frame."""
    a, b = alpha_bar_of(s), alpha_bar_of(t)
    denominator = np.sqrt(a) * (np.sqrt((1 - b) * a) + np.sqrt((1 - a) * b))
    return np.sqrt(b / a) * x - (b - a) / denominator * eps


def multistep(past: list[np.ndarray]) -> np.ndarray:
    """Liu et al. 2022, equation 12, and the lower orders of Adams and Bashforth."""
    if len(past) == 1:
        return past[0]
    if len(past) == 2:
        return (3 * past[-1] - past[-2]) / 2
    if len(past) == 3:
        return (23 * past[-1] - 16 * past[-2] + 5 * past[-3]) / 12
    return (55 * past[-1] - 59 * past[-2] + 37 * past[-3] - 9 * past[-4]) / 24


def plms(x: np.ndarray, sigmas: Sequence[float], eps: Source, z: Source) -> np.ndarray:
    """Heun's first step, then equation 12."""
    x = np.sqrt(alpha_bar_of(sigmas[0])) * x
    outputs = [eps()]
    if len(sigmas) == 2:
        return transfer(x, *sigmas, outputs[0])
    x = transfer(x, sigmas[0], sigmas[1], (outputs[0] + eps()) / 2)
    for i in range(1, len(sigmas) - 1):
        outputs.append(eps())
        x = transfer(x, sigmas[i], sigmas[i + 1], multistep(outputs[-4:]))
    return x


def pndm(x: np.ndarray, sigmas: Sequence[float], eps: Source, z: Source) -> np.ndarray:
    """Algorithm 2; the weights do not depend on where the middle stages are."""
    x = np.sqrt(alpha_bar_of(sigmas[0])) * x
    outputs: list[np.ndarray] = []
    for i in range(len(sigmas) - 1):
        outputs.append(eps())
        change = multistep(outputs[-4:])
        if i < min(3, len(sigmas) - 2):
            change = outputs[-1] / 6 + eps() / 3 + eps() / 3 + eps() / 6
        x = transfer(x, sigmas[i], sigmas[i + 1], change)
    return x


def lms(
    x: np.ndarray, sigmas: Sequence[float], eps: Source, z: Source, order: int = 4
) -> np.ndarray:
    """Integrates the polynomial through the last slopes in exact arithmetic."""
    slopes: list[np.ndarray] = []
    for i in range(len(sigmas) - 1):
        slopes.append(eps())
        nodes = [Fraction(sigma) for sigma in sigmas[max(i + 1 - order, 0) : i + 1]]
        ends = Fraction(sigmas[i]), Fraction(sigmas[i + 1])
        for node, slope in zip(nodes, slopes[-len(nodes) :], strict=True):
            basis = [Fraction(1)]  # coefficients of the Lagrange polynomial, exact
            for other in nodes:
                if other != node:
                    shifted = zip([Fraction(0), *basis], [*basis, Fraction(0)], strict=True)
                    basis = [(low - other * high) / (node - other) for low, high in shifted]
            upper, lower = (
                sum(c * end ** (k + 1) / (k + 1) for k, c in enumerate(basis)) for end in ends[::-1]
            )
            x = x + float(upper - lower) * slope
    return x


def ipndm(x: np.ndarray, sigmas: Sequence[float], eps: Source, z: Source) -> np.ndarray:
    """Zhang & Chen 2022, algorithm 2's fixed weights on dx/dsigma."""
    slopes: list[np.ndarray] = []
    for i in range(len(sigmas) - 1):
        slopes.append(eps())
        x = x + (sigmas[i + 1] - sigmas[i]) * multistep(slopes[-4:])
    return x


def deis(x: np.ndarray, sigmas: Sequence[float], eps: Source, z: Source, order: int) -> np.ndarray:
    """Zhang & Chen 2022: the integral of eps d(rho), eps a polynomial in log rho."""
    slopes: list[np.ndarray] = []
    points, weights = np.polynomial.legendre.leggauss(60)
    for i in range(len(sigmas) - 1):
        s, t = sigmas[i], sigmas[i + 1]
        slopes.append(eps())
        if t == 0:
            return x - s * slopes[-1]
        nodes = np.log(sigmas[max(i + 1 - order, 0) : i + 1])
        at = np.log(s) + (np.log(t) - np.log(s)) * (points + 1) / 2
        for j, slope in enumerate(slopes[-len(nodes) :]):
            basis = np.ones_like(at)
            for k in range(len(nodes)):
                if k != j:
                    basis *= (at - nodes[k]) / (nodes[j] - nodes[k])
            integral = weights @ (basis * np.exp(at)) * (np.log(t) - np.log(s)) / 2
            x = x + integral * slope
    return x


def unipc(
    x: np.ndarray,
    sigmas: Sequence[float],
    eps: Source,
    z: Source,
    order: int,
    bh1: bool = False,
    predict_x0: bool = True,
) -> np.ndarray:
    """Zhao et al. 2023, algorithms 5 to 8, in the variance-preserving frame."""
    n = len(sigmas) - 1
    alpha = [np.sqrt(alpha_bar_of(s)) for s in sigmas]
    lam = [-np.log(s) if s > 0 else np.inf for s in sigmas]
    x = alpha[0] * x
    outputs: list[np.ndarray] = []

    def move(x: np.ndarray, i: int, p: int, ahead: np.ndarray | None) -> np.ndarray:
        h = lam[i + 1] - lam[i]
        hh = -h if predict_x0 else h
        b_h = hh if bh1 else np.expm1(hh)
        r = [(lam[i - k] - lam[i]) / h for k in range(1, p)]
        differences = [(outputs[i - k] - outputs[i]) / r[k - 1] for k in range(1, p)]
        if ahead is not None:
            r.append(1.0)
            differences.append(ahead - outputs[i])
        rho = np.zeros(0)
        if len(r) == 1 and (ahead is None or p == 1):
            rho = np.array([0.5])
        elif r:
            phi = [phi_by_quadrature(k + 2, hh) for k in range(len(r))]
            b = [np.prod(np.arange(1, k + 2)) * hh * phi[k] / b_h for k in range(len(r))]
            rho = np.linalg.solve(np.vander(r, increasing=True).T, b)
        residual = sum((w * d for w, d in zip(rho, differences, strict=True)), 0.0 * x)
        sigma, sigma_next = (alpha[k] * sigmas[k] for k in (i, i + 1))
        if predict_x0:
            base = sigma_next / sigma * x - alpha[i + 1] * np.expm1(hh) * outputs[i]
            return base - alpha[i + 1] * b_h * residual
        base = alpha[i + 1] / alpha[i] * x - sigma_next * np.expm1(hh) * outputs[i]
        return base - sigma_next * b_h * residual

    before, p = x, 0
    for i in range(n):
        e = eps()
        x0 = (x - alpha[i] * sigmas[i] * e) / alpha[i]
        if i > 0:
            x = move(before, i - 1, p, x0 if predict_x0 else e)
        outputs.append(x0 if predict_x0 else e)
        p = min(order, n - i, i + 1)
        if sigmas[i + 1] == 0:
            return x0
        before = x
        x = move(x, i, p, None)
    return x / alpha[-1]


def phi_by_quadrature(k: int, z: float) -> float:
    """phi_k(z) as the integral of e^((1-r)*z)*r^(k-1)/(k-1)! over 0..1."""
    points, weights = np.polynomial.legendre.leggauss(60)
    r = (points + 1) / 2
    return float(weights @ (np.exp((1 - r) * z) * r ** (k - 1)) / 2 / np.prod(np.arange(1, k)))


def lcm(
    x: np.ndarray, sigmas: Sequence[float], eps: Source, z: Source, scaling: float
) -> np.ndarray:
    """Luo et al. 2023, algorithm 3, told sigma itself as the timestep."""
    x = x * np.sqrt(alpha_bar_of(sigmas[0]))
    for i in range(len(sigmas) - 1):
        a, a_next = alpha_bar_of(sigmas[i]), alpha_bar_of(sigmas[i + 1])
        x0 = (x - np.sqrt(1 - a) * eps()) / np.sqrt(a)
        tau = scaling * sigmas[i]
        clean = 0.25 / (tau**2 + 0.25) * x + tau / np.sqrt(tau**2 + 0.25) * x0
        x = np.sqrt(a_next) * clean
        if a_next < 1:
            x = x + np.sqrt(1 - a_next) * z()
    return x


def tcd(x: np.ndarray, sigmas: Sequence[float], eps: Source, z: Source, gamma: float) -> np.ndarray:
    """Zheng et al. 2024, algorithm 4, with sigma as the time that gamma scales."""
    x = x * np.sqrt(alpha_bar_of(sigmas[0]))
    for i in range(len(sigmas) - 1):
        a, a_next = alpha_bar_of(sigmas[i]), alpha_bar_of(sigmas[i + 1])
        a_s = alpha_bar_of((1 - gamma) * sigmas[i + 1])
        e = eps()
        x0 = (x - np.sqrt(1 - a) * e) / np.sqrt(a)
        x = np.sqrt(a_s) * x0 + np.sqrt(1 - a_s) * e
        if i < len(sigmas) - 2 and gamma > 0:
            x = np.sqrt(a_next / a_s) * x + np.sqrt(1 - a_next / a_s) * z()
    return x
