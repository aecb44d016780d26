"""DPM-Solver and DPM-Solver++ in general: orders 1 to 3, multistep and singlestep.

Letters: s, t noise levels before and after a step, h = log(s/t) the step in lambda = -log sigma;
out what is integrated (x0, or eps); D0, D1, D2 its value, slope and curvature over lambda, times 1,
h, h^2.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, sqrt
from typing import Any

from ..errors import InvalidRequestError
from ..tracing.registry import sampler
from .euler import pairs
from .exponential import phi

__all__ = ["dpm_multistep", "dpm_singlestep"]

Past = list[tuple[float, Any]]  # lambda and what the network said there, latest first


@sampler(
    "DPM-Solver of order 1 to 3 with one network run per step",
    update="exp. integral over λ of a polynomial of degree p − 1 through D, D₋₁, ... (or ε)",
    paper="Lu et al. 2022, arXiv 2211.01095",
    diffusers_class="DPMSolverMultistepScheduler",
)
def dpm_multistep(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    order: int = 3,
    solver_type: str = "midpoint",
    predict: str = "x0",
    noise: bool = False,
    lower_order_final: int = 0,
    result_scale: float = 1.0,
) -> Any:
    """Lu et al. 2022 (DPM-Solver++), algorithm 2 for any order, integrating x0 or eps.

    solver_type: how order 2 integrates its slope, "midpoint" or "heun" (exactly).
    predict: "x0", or "eps" as in the first DPM-Solver. noise: the reverse SDE ("eps" only).
    lower_order_final: the last step has order 1 (1), the one before it order 2 at most (2).
    result_scale: factor on the result, where diffusers holds latents in another frame.
    """
    _check(order, solver_type, predict)
    if noise and predict != "eps":
        raise InvalidRequestError("noise: True, allowed is False with predict x0.", param="noise")
    past: Past = []
    for i, (s, t) in enumerate(pairs(sigmas)):
        x0 = m.denoise(x, s)
        left = len(sigmas) - 2 - i
        past = _seen(past, s, x0 if predict == "x0" else (x - x0) / s)[:order]
        used = past[: left + 1] if left < lower_order_final else past
        if t == 0.0:
            x = x0
        elif t != s:
            change = _divided(used, log(s / t), solver_type, predict)
            x = t / s * x + change if predict == "x0" else x - (2 if noise else 1) * t * change
        if noise and s > t > 0.0:
            x = x + sqrt(s * s - t * t) * m.noise(s, t)
        if left == 0:
            x = result_scale * x
        m.step(x, denoised=x0)
    return x


@sampler(
    "DPM-Solver of order 1 to 3 in groups of as many steps",
    update="the same within a group of p steps that begins at one latent",
    paper="Lu et al. 2022, arXiv 2206.00927",
    diffusers_class="DPMSolverSinglestepScheduler",
)
def dpm_singlestep(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    order: int = 2,
    solver_type: str = "midpoint",
    predict: str = "x0",
    noise: bool = False,
    lower_order_final: bool = True,
    result_scale: float = 1.0,
) -> Any:
    """Lu et al. 2022 (DPM-Solver), algorithms 1 and 2: groups of `order` steps from one latent.

    The k-th step of a group starts again from its first latent, with what k network runs said.
    solver_type, predict, result_scale: as for `dpm_multistep`. noise: the reverse SDE ("x0" only).
    lower_order_final: end with shorter groups, as diffusers does when the last sigma is 0.
    """
    _check(order, solver_type, predict)
    if noise and (predict != "x0" or order > 2):
        raise InvalidRequestError("noise: True, allowed with x0 and order <= 2.", param="noise")
    orders = _groups(len(sigmas) - 1, order, lower_order_final, sigmas[-1] == 0.0)
    past: Past = []
    for i, (s, t) in enumerate(pairs(sigmas)):
        x0 = m.denoise(x, s)
        if orders[i] == 1:
            base, start, past = x, s, []
        past = _seen(past, s, x0 if predict == "x0" else (x - x0) / s)
        if t == 0.0:
            x = x0
        elif t != start:
            u = (2 if noise else 1) * log(start / t)
            change = _from_first(past, log(start / t), u, solver_type, predict)
            x = exp(-u) * base + change if predict == "x0" else base - t * change
        if noise and start > t > 0.0:
            x = x + t * sqrt(1 - (t / start) ** 2) * m.noise(start, t)
        if i == len(sigmas) - 2:
            x = result_scale * x
        m.step(x, denoised=x0)
    return x


def _seen(past: Past, s: float, out: Any) -> Past:
    """The outputs at distinct noise levels, with a new one."""
    return [(-log(s), out), *(p for p in past if p[0] != -log(s))]


def _divided(used: Past, h: float, solver_type: str, predict: str) -> Any:
    """Integral of the polynomial through the outputs at and before the step."""
    z = -h if predict == "x0" else h
    change = h * phi(1, z) * used[0][1]
    if len(used) > 1:
        d1 = (used[0][1] - used[1][1]) * (h / (used[0][0] - used[1][0]))
        if len(used) > 2:
            older = (used[1][1] - used[2][1]) * (h / (used[1][0] - used[2][0]))
            d2 = (d1 - older) * (h / (used[0][0] - used[2][0]))
            d1 = d1 + d2 * ((used[0][0] - used[1][0]) / h)
            return change + h * phi(2, z) * d1 + h * phi(3, z) * d2
        change = change + h * (phi(1, z) / 2 if solver_type == "midpoint" else phi(2, z)) * d1
    return change


def _from_first(past: Past, h: float, u: float, solver_type: str, predict: str) -> Any:
    """Integral of the polynomial through the outputs of a group, from its first latent."""
    z = -u if predict == "x0" else u
    at, first = past[-1]
    change = u * phi(1, z) * first
    if len(past) > 1:
        r0 = (past[0][0] - at) / h
        d1 = (past[0][1] - first) / r0
        if len(past) > 2 and solver_type == "heun":
            r1 = (past[1][0] - at) / h
            middle = (past[1][1] - first) / r1
            d2 = 2 * (d1 - middle) / (r0 - r1)
            d1 = (r0 * middle - r1 * d1) / (r0 - r1)
            return change + u * phi(2, z) * d1 + u * phi(3, z) * d2
        second = len(past) == 2 and solver_type == "midpoint"
        change = change + u * (phi(1, z) / 2 if second else phi(2, z)) * d1
    return change


def _groups(n: int, order: int, lower_order_final: bool, to_zero: bool) -> list[int]:
    """The order of each of n steps, as diffusers arranges them."""
    full = list(range(1, order + 1))
    orders = (full * (n // order + 1))[:n]
    if (lower_order_final or to_zero) and n % order == 0:
        orders[n - order :] = {1: [1], 2: [1, 1], 3: [1, 2, 1]}[order]
    if to_zero:
        orders[-1] = 1
    return orders


def _check(order: int, solver_type: str, predict: str) -> None:
    for name, value, allowed in (
        ("order", order, (1, 2, 3)),
        ("solver_type", solver_type, ("midpoint", "heun")),
        ("predict", predict, ("x0", "eps")),
    ):
        if value not in allowed:
            raise InvalidRequestError(
                f"{name}: {value!r}, allowed are {', '.join(map(str, allowed))}.", param=name
            )
