"""Later samplers of the reverse SDE and its relatives, in float64; see samplers_float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from .multistep_float64 import phi_by_quadrature
from .samplers_float64 import Source, alpha_bar_of
from .two_stage_float64 import split

POINTS, WEIGHTS = np.polynomial.legendre.leggauss(80)


def lagrange(nodes: Sequence[float], j: int, at: np.ndarray) -> np.ndarray:
    basis = np.ones_like(at)
    for k, node in enumerate(nodes):
        if k != j:
            basis = basis * (at - node) / (nodes[j] - node)
    return basis


def sa_solver(
    x: np.ndarray,
    sigmas: Sequence[float],
    eps: Source,
    z: Source,
    tau: Callable[[float], float] | float = 1.0,
    p: int = 2,
    c: int = 2,
    predict_x0: bool = True,
    lower: bool = True,
) -> np.ndarray:
    """Xue et al. 2023, algorithm 1, equations 14 to 18, in the variance-preserving frame.

    The weights of two outputs in data prediction are those of the authors' code: the integral of
    the slope's factor over the step without the exponential.
    """
    n = len(sigmas) - 1
    a = [np.sqrt(alpha_bar_of(s)) for s in sigmas]
    lam = [-np.log(s) if s > 0 else np.inf for s in sigmas]
    x = a[0] * x
    outputs: list[np.ndarray] = []

    def move(x: np.ndarray, i: int, noise: np.ndarray, used: list[int], t2: float) -> np.ndarray:
        """From level i to i+1 with the outputs of the levels `used`."""
        h = lam[i + 1] - lam[i]
        at = lam[i] + h * (POINTS + 1) / 2
        nodes = [lam[k] for k in used]
        if predict_x0:
            kernel = WEIGHTS * h / 2 * (1 + t2) * np.exp((1 + t2) * (at - lam[i + 1])) * a[i + 1]
            x = np.exp(-t2 * h) * (a[i + 1] * sigmas[i + 1]) / (a[i] * sigmas[i]) * x
            x = x + a[i + 1] * sigmas[i + 1] * np.sqrt(-np.expm1(-2 * t2 * h)) * noise
        else:
            kernel = -WEIGHTS * h / 2 * (1 + t2) * np.exp(-at) * a[i + 1]
            x = a[i + 1] / a[i] * x
            x = x + np.sqrt(t2) * a[i + 1] * sigmas[i + 1] * np.sqrt(np.expm1(2 * h)) * noise
        weights = [kernel @ lagrange(nodes, j, at) for j in range(len(used))]
        if predict_x0 and len(used) == 2:
            here = used.index(i)
            slope = a[i + 1] * (1 + t2) * h * h / 2 / (nodes[1 - here] - nodes[here])
            weights[1 - here] = slope
            weights[here] = kernel.sum() - slope
        return x + sum(w * outputs[k] for w, k in zip(weights, used, strict=True))

    before, noise, tau_last, c_now = x, x, 0.0, 0
    for i in range(n):
        e = eps()
        x0 = x / a[i] - sigmas[i] * e
        outputs.append(x0 if predict_x0 else e)
        if i > 0 and c > 0:
            used = [i, *range(i - 1, max(i - c_now, -1), -1)]
            x = move(before, i - 1, noise, used, tau_last**2)
        if sigmas[i + 1] == 0:
            return x0
        p_now = min(p, n - i if lower else p, i + 1)
        c_now = min(c, n - i + 1 if lower else c, i + 2)
        tau_last = tau(sigmas[i]) if callable(tau) else tau
        noise = z() if tau_last > 0 else 0 * x
        before = x
        x = move(x, i, noise, list(range(i, i - p_now, -1)), tau_last**2)
    return x / a[-1]


def er_sde(x: np.ndarray, sigmas: Sequence[float], eps: Source, z: Source, order: int = 3):
    """Cui et al. 2023: the variance-exploding solvers, integrals over sigma piece by piece."""

    def scale(sigma: np.ndarray | float) -> np.ndarray | float:
        return sigma * (np.exp(np.power(sigma, 0.3)) + 10)

    outputs: list[np.ndarray] = []
    for i in range(len(sigmas) - 1):
        s, t = sigmas[i], sigmas[i + 1]
        outputs.append(x - s * eps())
        if t == 0:
            return outputs[-1]
        ratio = scale(t) / scale(s)
        x = ratio * x + (1 - ratio) * outputs[-1]
        edges = np.geomspace(t, s, 30)
        at = ((edges[1:] + edges[:-1]) / 2)[:, None] + np.diff(edges)[:, None] / 2 * POINTS
        # t - s + scale(t)*integral(1/scale) and (t - s)^2/2 + ..., each under one integral
        kernel = np.diff(edges)[:, None] / 2 * WEIGHTS * (scale(t) / scale(at) - 1)
        if order > 1 and i > 0:
            slope = (outputs[-1] - outputs[-2]) / (s - sigmas[i - 1])
            x = x + kernel.sum() * slope
            if order > 2 and i > 1:
                older = (outputs[-2] - outputs[-3]) / (sigmas[i - 1] - sigmas[i - 2])
                curve = (slope - older) / ((s - sigmas[i - 2]) / 2)
                x = x + (kernel * (at - s)).sum() * curve
        x = x + np.sqrt(t**2 - s**2 * ratio**2) * z()
    return x


def res_multistep(x: np.ndarray, sigmas: Sequence[float], eps: Source, z: Source, eta: float = 0.0):
    """Zhang et al. 2023: x0 linear in lambda; the earlier one as far off as its step went."""
    last: tuple[np.ndarray, float] | None = None
    for s, t in pairwise(sigmas):
        down, up = split(s, t, eta)
        x0 = x - s * eps()
        if down == 0:
            return x0
        h = np.log(s / down)
        x, b1 = down / s * x, h * phi_by_quadrature(1, -h)
        if last is not None:
            b2 = h * phi_by_quadrature(2, -h) / (-last[1] / h)
            b1, x = b1 - b2, x + b2 * last[0]
        x = x + b1 * x0
        if up > 0:
            x = x + up * z()
        last = x0, h
    return x


def gradient_estimation(
    x: np.ndarray, sigmas: Sequence[float], eps: Source, z: Source, gamma: float = 2.0
) -> np.ndarray:
    """Permenter & Yuan 2024, algorithm 2, to x0 at the end."""
    last = None
    for s, t in pairwise(sigmas):
        e = eps()
        mean = e if last is None or t == 0 else gamma * e + (1 - gamma) * last
        x = x - (s - t) * mean
        last = e
    return x


def dpm_fast(
    x: np.ndarray,
    sigmas: Sequence[float],
    eps: Source,
    z: Source,
    eta: float = 0.0,
    orders: Sequence[int] | None = None,
) -> np.ndarray:
    """Lu et al. 2022, equations 3.7 and 3.9 and algorithms 1 and 2, with r1 = 1/2, (1/3, 2/3)."""
    n = len(sigmas) - 1
    orders = orders or ([3] * (n - 2) + [2, 1])[-n:]
    for i, (s, t) in enumerate(pairwise(sigmas)):
        e = eps()
        down = max(split(s, t, eta)[0], sigmas[-1])
        up = np.sqrt(t**2 - down**2)
        if t == 0:
            x = x - s * e
            continue
        h = np.log(s) - np.log(down)
        to = x - down * np.expm1(h) * e
        if orders[i] == 2:
            to = to - down / (2 * 0.5) * np.expm1(h) * (eps() - e)
        elif orders[i] == 3:
            first, second = eps() - e, eps() - e
            assert first.shape == second.shape  # only the second stage counts in the result
            to = to - down / (2 / 3) * h * phi_by_quadrature(2, h) * second
        x = to + (up * z() if up > 0 else 0)
    return x


def restart(
    x: np.ndarray,
    sigmas: Sequence[float],
    eps: Source,
    z: Source,
    low: float,
    high: float,
    k: int,
    n_steps: int,
) -> np.ndarray:
    """Xu et al. 2023, algorithm 1 around Karras et al. 2022, algorithm 1."""

    def heun(x: np.ndarray, levels: Sequence[float]) -> np.ndarray:
        for s, t in pairwise(levels):
            slope = eps()
            x = x + (t - s) * ((slope + eps()) / 2 if t > 0 else slope)
        return x

    positive = [s for s in sigmas[1:] if s > 0]
    if not positive:
        return heun(x, sigmas)
    bottom = positive[int(np.argmin(np.abs(np.array(positive) - low)))]
    top = min(high, sigmas[0])
    at = list(sigmas).index(bottom)
    x = heun(x, sigmas[: at + 1])
    ramp = np.linspace(top ** (1 / 7), bottom ** (1 / 7), n_steps + 1) ** 7
    for _ in range(k if top > bottom else 0):
        x = heun(x + np.sqrt(top**2 - bottom**2) * z(), ramp)
    return heun(x, sigmas[at:])
