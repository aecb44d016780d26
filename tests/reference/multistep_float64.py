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
