"""Pseudo linear multistep methods (PNDM): Adams-Bashforth on the network's outputs.

Letters: s, t noise levels before and after a transfer; e the network's output (eps, or v); e1..e4
the stages of a Runge-Kutta step; past the outputs so far, latest first. Here x is in the
variance-preserving frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

from ..tracing.registry import sampler

__all__ = ["ADAMS_BASHFORTH", "plms", "pndm"]

# Weights of the latest, the one before, ...: orders 1 to 4 at equal steps.
ADAMS_BASHFORTH = (
    (1.0,),
    (3 / 2, -1 / 2),
    (23 / 12, -16 / 12, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


@sampler(
    "fourth order multistep, n+1 network runs: Stable Diffusion's first sampler",
    update="ddim along (55ε − 59ε₋₁ + 37ε₋₂ − 9ε₋₃)/24",
    paper="Liu et al. 2022, arXiv 2202.09778",
    schedule="leading",
    diffusers_class="PNDMScheduler",
)
def plms(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    targets: Sequence[float] | None = None,
    restart: float | None = None,
    velocity: bool = False,
    late: bool = False,
) -> Any:
    """Liu et al. 2022 (PNDM), equations 9 and 12, started by one step of second order: n+1 runs.

    targets: the noise levels to step to, sigmas[1:] unless given (diffusers' timesteps t - T//n).
    restart: the level that the second estimate of the first step starts from, sigmas[0] unless
    given (diffusers' timestep t1 + T//n).
    velocity: combine the outputs as v and not as eps, as diffusers does for v_prediction.
    late: the second run of the start takes the place of a step, so that from then on the network is
    told one level less than x has (diffusers' class when it begins in the middle); n runs.
    """
    targets = sigmas[1:] if targets is None else targets
    x = x / sqrt(1 + sigmas[0] ** 2)
    start, past = x, list[Any]()
    for i, (s, t) in enumerate(zip(sigmas, targets, strict=False)):
        e, x0 = _output(m, x, s, velocity)
        if late and i == 1:
            x = _transfer(start, restart or sigmas[0], s, (past[0] + e) / 2, velocity)
            m.step(x, denoised=x0)
            continue
        past = [e, *past[:3]]
        y = _transfer(x, s, t, _adams_bashforth(past), velocity)
        if i == 0 and len(sigmas) > 2 and not late:
            e2, _ = _output(m, y, sigmas[1], velocity)
            y = _transfer(x, restart or s, sigmas[1], (e + e2) / 2, velocity)
        x = y
        m.step(x, denoised=x0)
    return x


@sampler(
    "plms started by three Runge-Kutta steps of four network runs each",
    update="three steps of (ε + 2ε′ + 2ε″ + ε‴)/6, then plms",
    paper="Liu et al. 2022, arXiv 2202.09778",
    schedule="leading",
    diffusers_class="PNDMScheduler",
)
def pndm(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    targets: Sequence[float] | None = None,
    middles: Sequence[tuple[float, float]] | None = None,
    velocity: bool = False,
) -> Any:
    """Liu et al. 2022 (PNDM), algorithm 2: three Runge-Kutta steps (equation 13), then as `plms`.

    targets, velocity: as for `plms`.
    middles: of the Runge-Kutta steps, the levels that the first stage steps to and that the two
    middle stages are at; sqrt(s*t) unless given (diffusers' differ by a timestep where T//n is
    odd).
    """
    targets = sigmas[1:] if targets is None else targets
    x = x / sqrt(1 + sigmas[0] ** 2)
    past: list[Any] = []
    for i, (s, t) in enumerate(zip(sigmas, targets, strict=False)):
        e1, x0 = _output(m, x, s, velocity)
        past = [e1, *past[:3]]
        e = _adams_bashforth(past)
        if i < 3 and i + 2 < len(sigmas):
            t = sigmas[i + 1]
            half, middle = (sqrt(s * t),) * 2 if middles is None else middles[i]
            e2, _ = _output(m, _transfer(x, s, half, e1, velocity), middle, velocity)
            e3, _ = _output(m, _transfer(x, s, middle, e2, velocity), middle, velocity)
            e4, _ = _output(m, _transfer(x, s, t, e3, velocity), t, velocity)
            e = (e1 + 2 * e2 + 2 * e3 + e4) / 6
        x = _transfer(x, s, t, e, velocity)
        m.step(x, denoised=x0)
    return x


def _output(m: Any, x: Any, s: float, velocity: bool) -> tuple[Any, Any]:
    """(eps or v, x0) at the VP latent x."""
    a, b = 1 / (1 + s * s), s * s / (1 + s * s)
    x0 = m.denoise(x / sqrt(a), s)
    return ((sqrt(a) * x - x0) if velocity else (x - sqrt(a) * x0)) / sqrt(b), x0


def _adams_bashforth(past: list[Any]) -> Any:
    weights = ADAMS_BASHFORTH[len(past) - 1]
    return sum(w * e for w, e in zip(weights, past, strict=True))


def _transfer(x: Any, s: float, t: float, e: Any, velocity: bool) -> Any:
    """Equation 9, which is DDIM's step: from s to t along eps."""
    if velocity:
        e = (e + s * x) / sqrt(1 + s * s)
    return (x * sqrt(1 + s * s) + (t - s) * e) / sqrt(1 + t * t)
