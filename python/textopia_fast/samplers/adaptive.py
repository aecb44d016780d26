"""Adaptive methods for the probability-flow ODE: they choose their steps as they go.

No fixed table can hold them, so they run on arrays (see `stepwise`). Letters: s the noise level, D
the denoised latent, u = log s, t = -log s, h the step in them, k slopes dx/du = x - D(x; s).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import atan, exp, expm1, log, sqrt
from typing import Any

from ..checks import refuse
from ..errors import NumericalError
from ..tracing.registry import sampler
from .euler import ancestral_split

__all__ = ["dpm_adaptive", "rk45"]

MOST_STEPS = 10_000
"""Steps after which an adaptive sampler gives up: its tolerance is out of reach."""

# Dormand & Prince 1980, table 2: row i gives the weights of the slopes at the point of stage i + 1,
# NODES its place in the step. The last row is the solution of order 5, ERROR its difference to that
# of order 4.
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_NODES = (1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


@sampler(
    "probability-flow ODE, adaptive Runge-Kutta 5(4), to a tolerance",
    update="Dormand–Prince 5(4); the step follows from their difference",
    paper="Song et al. 2021, arXiv 2011.13456",
    is_traced=False,
)
def rk45(m: Any, x: Any, sigmas: Sequence[float], rtol: float = 1e-5, atol: float = 1e-5) -> Any:
    """Dormand & Prince 1980: the probability-flow ODE by their 5(4) pair, which chooses its steps.

    score_sde's ode_sampler, with its tolerances. Runs step by step from Python over native network
    runs, from the first of sigmas to the last positive one, whatever stands between; when the last
    is 0 it ends with the denoised latent. All images of a batch share their steps.

    rtol, atol: the estimated error of a step is at most atol + rtol*|x|, root mean square over the
    batch.
    """
    check_tolerances(rtol, atol)
    u, end = log(sigmas[0]), log(lowest_level(sigmas))
    h, x0 = 0.05, m.denoise(x, sigmas[0])
    first = x - x0
    for steps in range(MOST_STEPS):
        if u - end < 1e-9:
            return last_step(m, x, sigmas)
        h = min(h, u - end)
        if u - h == u:
            raise not_reached("rk45", steps)
        k, point = [first], x
        for weights, node in zip(_STAGES, _NODES, strict=True):
            point = x - h * _sum(weights, k)
            x0 = m.denoise(point, exp(u - node * h))
            k.append(point - x0)
        allowed = atol + rtol * abs(x).clip(abs(point))
        error = root_mean_square(h * _sum(_ERROR, k) / allowed)
        if error <= 1.0:
            u, x, first = u - h, point, k[-1]
            m.step(x, denoised=x0)
        h *= min(max(0.9 * error**-0.2 if error > 0.0 else 5.0, 0.2), 5.0)
    raise not_reached("rk45", MOST_STEPS)


class StepSize:
    """The step size h of an adaptive method: a PID controller (Soderlind 2003) with a limiter."""

    def __init__(
        self, h: float, order: float, p: float, i: float, d: float, accept_safety: float
    ) -> None:
        """p, i, d: coefficients. accept_safety: a step counts when h may stay above that share."""
        self.h = h
        self._powers = ((p + i + d) / order, -(p + 2 * d) / order, d / order)
        self._safety = accept_safety
        self._past: list[float] = []

    def accept(self, error: float) -> bool:
        """Whether a step with that error (1 is allowed) counts; sets h for the next."""
        inverse = 1 / (error + 1e-8)
        one, two = self._past or (inverse, inverse)
        b1, b2, b3 = self._powers
        factor = 1 + atan(inverse**b1 * one**b2 * two**b3 - 1)
        is_accepted = factor >= self._safety
        if is_accepted or not self._past:
            self._past = [inverse, one]
        self.h *= factor
        return is_accepted


@sampler(
    "adaptive DPM-Solver of orders 1-2 or 2-3, with k-diffusion's controller",
    update="DPM-Solver of two orders; h follows from their difference",
    paper="Lu et al. 2022, arXiv 2206.00927",
    is_traced=False,
)
def dpm_adaptive(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    order: int = 3,
    rtol: float = 0.05,
    atol: float = 0.0078,
    h_init: float = 0.05,
    pcoeff: float = 0.0,
    icoeff: float = 1.0,
    dcoeff: float = 0.0,
    accept_safety: float = 0.81,
    eta: float = 0.0,
    s_noise: float = 1.0,
) -> Any:
    """Lu et al. 2022 (DPM-Solver), appendix C: orders 1 and 2, or 2 and 3, with k-diffusion's step.

    Runs step by step from Python over native network runs, from the first of sigmas to the last
    positive one, whatever stands between; when the last is 0 it ends with the denoised latent. All
    images of a batch share their steps. Options and their defaults are k-diffusion's.

    order: 2 or 3, also the network runs per step. rtol, atol: the two orders may differ by
    max(atol, rtol*|x|), root mean square over the batch. h_init: first step in log sigma.
    pcoeff, icoeff, dcoeff, accept_safety: of the controller. eta, s_noise: as of euler_ancestral.
    """
    check_tolerances(rtol, atol)
    if order not in (2, 3):
        refuse("order", order, "are 2, 3")
    if h_init == 0.0:
        refuse("h_init", h_init, "are numbers other than 0")
    t, end = -log(sigmas[0]), -log(lowest_level(sigmas))
    way = 1.0 if end > t else -1.0  # upwards, from data to noise, for k-diffusion's inversion
    if way < 0.0 and eta:
        refuse("eta", eta, "is 0 towards more noise")
    size = StepSize(way * abs(h_init), 1.5 if eta else order, pcoeff, icoeff, dcoeff, accept_safety)
    low = x
    counts = dict.fromkeys(("steps", "nfe", "n_accept", "n_reject"), 0)
    while way * (end - t) > 1e-5:
        after = min(t + size.h, end) if way > 0.0 else max(t + size.h, end)
        if after == t or counts["steps"] >= MOST_STEPS:
            raise not_reached("dpm_adaptive", counts["steps"])
        down, _ = ancestral_split(exp(-t), exp(-after), eta)
        target = min(end, -log(max(down, 1e-300))) if eta else after
        up = sqrt(max(exp(-2 * after) - exp(-2 * target), 0.0))
        x0 = m.denoise(x, exp(-t))
        lower, higher = _two_orders(m, x, x0, t, target - t, order)
        allowed = (rtol * abs(lower).clip(abs(low))).clip(atol)
        error = root_mean_square((lower - higher) / allowed)
        is_accepted = size.accept(error)
        if is_accepted:
            low, x = lower, higher
            if up > 0.0:
                x = x + up * s_noise * m.noise(exp(-t), exp(-after))
            t = after
        for name, n in (("steps", 1), ("nfe", order), ("n_accept", is_accepted)):
            counts[name] += n
        counts["n_reject"] = counts["steps"] - counts["n_accept"]
        m.step(x, denoised=x0, info={"t": t, "error": error, "h": size.h, **counts})
    return last_step(m, x, sigmas)


def _two_orders(m: Any, x: Any, x0: Any, t: float, h: float, order: int) -> tuple[Any, Any]:
    """DPM-Solver-1 and -2, or -2 and -3, over one step h in t = -log(sigma)."""

    def eps(u: Any, at: float) -> Any:
        return (u - m.denoise(u, exp(-at))) / exp(-at)

    r1, r2 = (0.5, 1.0) if order == 2 else (1 / 3, 2 / 3)
    end = exp(-t - h)
    eps0 = (x - x0) / exp(-t)
    first = x - end * expm1(h) * eps0
    u1 = x - exp(-t - r1 * h) * expm1(r1 * h) * eps0
    d1 = eps(u1, t + r1 * h) - eps0
    second = first - end * expm1(h) / (2 * r1) * d1
    if order == 2:
        return first, second
    s2, rest = exp(-t - r2 * h), expm1(r2 * h) / (r2 * h) - 1
    u2 = x - s2 * expm1(r2 * h) * eps0 - s2 * r2 / r1 * rest * d1
    d2 = eps(u2, t + r2 * h) - eps0
    return second, first - end / r2 * (expm1(h) / h - 1) * d2


def lowest_level(sigmas: Sequence[float]) -> float:
    """The last positive noise level."""
    return sigmas[-1] if sigmas[-1] > 0.0 else sigmas[-2]


def check_tolerances(rtol: float, atol: float) -> None:
    """Refuses negative ones, and both 0."""
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value < 0.0 or rtol + atol == 0.0:
            refuse(name, value, "are numbers >= 0, not both 0")


def root_mean_square(x: Any) -> float:
    """Of all elements of an array."""
    return sqrt(float((x * x).mean()))


def not_reached(name: str, steps: int) -> NumericalError:
    """The error of an adaptive sampler whose steps became too many or too small."""
    return NumericalError(
        f"denoising: {name} was not at the last noise level after {steps} steps.",
        hint="A larger rtol or atol takes longer steps.",
        stage="denoising",
        step=steps,
    )


def last_step(m: Any, x: Any, sigmas: Sequence[float]) -> Any:
    """The denoised latent, where the levels end at 0."""
    if sigmas[-1] == 0.0:
        x = m.denoise(x, sigmas[-2])
        m.step(x, denoised=x)
    return x


def _sum(weights: Sequence[float], arrays: Sequence[Any]) -> Any:
    total = weights[0] * arrays[0]
    for weight, array in zip(weights[1:], arrays[1:], strict=True):
        if weight:
            total = total + weight * array
    return total
