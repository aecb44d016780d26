"""DPM-Solver of any order: polynomials in lambda, integrated numerically, in float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .samplers_float64 import Source

POINTS, WEIGHTS = np.polynomial.legendre.leggauss(60)


def integrate(start: float, end: float, nodes: list[float], predict: str, speed: float = 1.0):
    """Weights of the outputs at `nodes`: integrals of the Lagrange polynomials times a kernel.

    The kernel over lambda is speed*exp(speed*(l - end)) for x0, and sigma = exp(-l) for eps.
    """
    at = start + (end - start) * (POINTS + 1) / 2
    kernel = speed * np.exp(speed * (at - end)) if predict == "x0" else np.exp(-at)
    basis = np.ones((len(nodes), len(at)))
    for j, node in enumerate(nodes):
        for other in nodes[:j] + nodes[j + 1 :]:
            basis[j] *= (at - other) / (node - other)
    return basis @ (kernel * WEIGHTS) * (end - start) / 2


def dpm_multistep(
    x: np.ndarray,
    sigmas: Sequence[float],
    eps: Source,
    z: Source,
    order: int,
    midpoint: bool = True,
    predict: str = "x0",
    noise: bool = False,
    lower: int = 0,
) -> np.ndarray:
    """Order 3 takes half of the quadratic term of its polynomial, as Lu et al. print it."""
    outputs: list[np.ndarray] = []
    for i in range(len(sigmas) - 1):
        s, t = sigmas[i], sigmas[i + 1]
        e = eps()
        if t == 0:
            return x - s * e
        outputs.append(x - s * e if predict == "x0" else e)
        left = len(sigmas) - 2 - i
        count = min(i + 1, order, left + 1 if left < lower else order)
        lam = [-np.log(sigma) for sigma in sigmas[: i + 2]]
        here, end = lam[-2], lam[-1]
        nodes, values = lam[-2 : -2 - count : -1], outputs[-1 : -1 - count : -1]
        if count == 1 or (count == 2 and not midpoint):
            change = integrate(here, end, nodes, predict) @ np.array(values).reshape(count, -1)
        elif count == 2:
            slope = (values[0] - values[1]) / (nodes[0] - nodes[1])
            change = integrate(here, end, [here], predict)[0] * (
                values[0] + slope * (end - here) / 2
            )
        else:
            whole = integrate(here, end, nodes, predict) @ np.array(values).reshape(3, -1)
            slope = (values[0] - values[1]) / (nodes[0] - nodes[1])
            older = (values[1] - values[2]) / (nodes[1] - nodes[2])
            second = (slope - older) / (nodes[0] - nodes[2])
            tangent = slope + second * (nodes[0] - nodes[1])
            linear = integrate(here, end, [here, end], predict)
            straight = linear[0] * values[0] + linear[1] * (values[0] + tangent * (end - here))
            change = (whole + straight) / 2
        x = t / s * x + change if predict == "x0" else x - (2 if noise else 1) * change
        if noise:
            x = x + np.sqrt(s**2 - t**2) * z()
    return x


def dpm_singlestep(
    x: np.ndarray,
    sigmas: Sequence[float],
    eps: Source,
    z: Source,
    orders: Sequence[int],
    midpoint: bool = True,
    predict: str = "x0",
    noise: bool = False,
) -> np.ndarray:
    """Every step of a group goes from the group's first level, through all or two outputs."""
    speed = 2.0 if noise else 1.0
    for i, order in enumerate(orders):
        s, t = sigmas[i], sigmas[i + 1]
        e = eps()
        if order == 1:
            base, group, outputs = x, s, []
            lam: list[float] = []
        outputs.append(x - s * e if predict == "x0" else e)
        lam.append(-np.log(s))
        if t == 0:
            return x - s * e
        end, here = -np.log(t), lam[0]
        if order == 2 and midpoint:
            slope = (outputs[1] - outputs[0]) / (lam[1] - lam[0])
            whole = integrate(here, end, [here], predict, speed)[0]
            change = whole * (outputs[0] + slope * (end - here) / 2)
        else:
            used = [0, -1] if order == 3 and midpoint else list(range(order))
            weights = integrate(here, end, [lam[k] for k in used], predict, speed)
            change = sum(w * outputs[k] for w, k in zip(weights, used, strict=True))
        x = (t / group) ** speed * base + change if predict == "x0" else base - change
        if noise:
            x = x + t * np.sqrt(1 - (t / group) ** 2) * z()
    return x
