"""SA-Solver: exponential Adams predictor and corrector on the reverse SDE, the noise by tau.

Letters: s, t noise levels before and after a step, h = log(s/t) the step in lambda = -log sigma;
tau scales the noise (0 is the ODE, 1 the reverse SDE), u = (1 + tau^2)*h; out what is integrated
(x0, or eps).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import expm1, log, sqrt
from typing import Any

from ..checks import check_integer, check_number, refuse
from ..tracing.registry import sampler
from .euler import pairs
from .exponential import phi, weights_at

__all__ = ["sa_solver"]

# No latent that is not 0 itself changes by this much in float32.
_NOTHING = 2.0**-100

Past = list[tuple[float, Any]]  # lambda and what the network said there, latest first


@sampler(
    "predictor and corrector on the reverse SDE in one network run per step, noise by tau",
    update="exp. integral of D, D₋₁, ... over the SDE with noise τ; the next D corrects it",
    paper="Xue et al. 2023, arXiv 2309.05019",
    diffusers_class="SASolverScheduler",
)
def sa_solver(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    timesteps: Sequence[float] | None = None,
    predictor_order: int = 2,
    corrector_order: int = 2,
    tau: Callable[[float], float] | float = 1.0,
    predict_x0: bool = True,
    lower_order_final: bool = True,
    keep_draws: bool = False,
    result_scale: float = 1.0,
) -> Any:
    """Xue et al. 2023 (SA-Solver), algorithm 1: SA-Predictor, and SA-Corrector with the next run.

    tau: one number, or a function from what the network is told (`timesteps`, else sigma) to it.
    corrector_order: 0 for none. predict_x0: integrate x0, else eps.
    lower_order_final: the predictor has order 1 in the last step, 2 before it.
    keep_draws: draw noise in every step, as diffusers does, with a weight below float32 where tau
    is 0. result_scale: factor on the result, where diffusers holds latents in another frame.
    """
    check_integer("predictor_order", predictor_order, 1, 4)
    check_integer("corrector_order", corrector_order, 0, 4)
    told = sigmas if timesteps is None else timesteps
    past: Past = []
    redo: Callable[[tuple[float, Any]], Any] | None = None  # what the corrector adds
    for i, (s, t) in enumerate(pairs(sigmas)):
        left = len(sigmas) - 1 - i if lower_order_final else len(sigmas)
        x0 = m.denoise(x, s)
        now = (-log(s), x0 if predict_x0 else (x - x0) / s)
        x = x if redo is None else x + redo(now)
        past = [now, *(p for p in past if p[0] != now[0])][:4]
        used = past[: min(predictor_order, left)]
        back = past[: min(corrector_order, left + 1) - 1] if corrector_order > 0 else None
        redo = None
        if t == 0.0:
            x = x0
        elif t != s:
            tau_now = _tau(tau, told[i])
            x, redo = _predict(m, x, s, t, used, back, tau_now, predict_x0)
        if keep_draws and t > 0.0 and (t == s or tau_now == 0.0):
            x = x + _NOTHING * m.noise()
        if i == len(sigmas) - 2:
            x = result_scale * x
        m.step(x, denoised=x0)
    return x


def _predict(
    m: Any, x: Any, s: float, t: float, used: Past, back: Past | None, tau: float, predict_x0: bool
) -> tuple[Any, Callable[[tuple[float, Any]], Any] | None]:
    """x after a step by equations 14 and 15, and the function that corrects it (equation 17)."""
    predicted = _integral(s, t, used, tau, predict_x0)
    if predict_x0:
        kept, sd = (t / s) ** (1 + tau * tau), t * sqrt(-expm1(-2 * tau * tau * log(s / t)))
    else:
        kept, sd = 1.0, tau * sqrt(s * s - t * t)
    x = kept * x + predicted
    x = x + sd * m.noise(s, t) if sd > 0.0 else x
    if back is None:
        return x, None

    def redo(ahead: tuple[float, Any]) -> Any:
        points = [back[0], ahead, *back[1:]] if back else [ahead]
        return _integral(s, t, points, tau, predict_x0) - predicted

    return x, redo


def _integral(s: float, t: float, points: Past, tau: float, predict_x0: bool) -> Any:
    """What the polynomial through the outputs at `points` adds from s to t.

    The first point is at s, unless it is the only one.
    """
    h = log(s / t)
    u = (1 + tau * tau) * h
    z = -u if predict_x0 else h
    (_, out), *others = points
    positions = [(at + log(s)) / h for at, _ in others]
    weights = weights_at(positions, z)
    if len(others) == 1 and predict_x0:
        weights = [0.5 / positions[0]]  # phi_2(0) for phi_2(z), as the authors' code has it
    change = phi(1, z) * out
    for weight, point in zip(weights, others, strict=True):
        change = change + weight * (point[1] - out)
    return u * change if predict_x0 else -t * u * change


def _tau(tau: Callable[[float], float] | float, told: float) -> float:
    value = check_number("tau", tau(told) if callable(tau) else tau)
    if value < 0.0:
        refuse("tau", value, "are numbers >= 0")
    return value
