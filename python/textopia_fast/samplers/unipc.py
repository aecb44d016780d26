"""UniPC: exponential multistep predictor and corrector that share their network runs.

Letters: s, t noise levels before and after a step, h = log(s/t) the step in lambda = -log sigma;
out what is integrated (x0, or eps); r positions of outputs, in steps h from s.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import expm1, log
from typing import Any

from ..errors import InvalidRequestError
from ..tracing.registry import sampler
from .euler import pairs
from .exponential import weights_at

__all__ = ["unipc"]

Past = list[tuple[float, Any]]  # lambda and what the network said there, latest first


@sampler(
    "predictor and corrector in one network run per step: good at 5-15 steps",
    update="dpm_multistep as predictor; the next D corrects the step that led to it",
    paper="Zhao et al. 2023, arXiv 2302.04867",
    diffusers_class="UniPCMultistepScheduler",
)
def unipc(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    order: int = 2,
    solver_type: str = "bh2",
    predict_x0: bool = True,
    lower_order_final: bool = True,
    disable_corrector: Sequence[int] = (),
    result_scale: float = 1.0,
) -> Any:
    """Zhao et al. 2023 (UniPC), algorithms 5 to 8: multistep UniP-p with UniC-p.

    order: p, 1 to 3. solver_type: B(h) of the lowest orders, "bh1" (h) or "bh2" (e^h - 1).
    predict_x0: integrate x0, else eps. lower_order_final: order 1 in the last step, 2 before it.
    disable_corrector: indices of steps that are not corrected by the network run after them.
    result_scale: factor on the result, where diffusers holds latents in another frame.
    """
    _check(order, solver_type)
    n = len(sigmas) - 1
    past: Past = []
    step: tuple[float, float, int] | None = None  # the last one: its levels and order
    for i, (s, t) in enumerate(pairs(sigmas)):
        x0 = m.denoise(x, s)
        now = (-log(s), x0 if predict_x0 else (x - x0) / s)
        if step is not None and i - 1 not in disable_corrector:
            start, end, used = step
            with_now = _change(start, end, past[:used], now, solver_type, predict_x0)
            x = x + with_now - _change(start, end, past[:used], None, solver_type, predict_x0)
        past = [now, *(p for p in past if p[0] != now[0])][:3]
        used = min(order, n - i if lower_order_final else order, len(past))
        step = (s, t, used) if t != s else None
        if t == 0.0:
            x = x0
        elif t != s:
            x = (t / s if predict_x0 else 1.0) * x
            x = x + _change(s, t, past[:used], None, solver_type, predict_x0)
        if i == n - 1:
            x = result_scale * x
        m.step(x, denoised=x0)
    return x


def _change(
    s: float,
    t: float,
    past: Past,
    ahead: tuple[float, Any] | None,
    solver_type: str,
    predict_x0: bool,
) -> Any:
    """What a step from s to t adds: from outputs at and before s, and the one at t if given."""
    h = log(s / t)
    z = -h if predict_x0 else h
    here, out = past[0]
    points = [*past[1:], *([ahead] if ahead is not None else [])]
    positions = [(point[0] - here) / h for point in points]
    if len(points) == 1 and (ahead is not None or len(past) == 2):
        # one point: the paper takes 1/2 for what the condition of order gives up to O(h)
        weights = [(h if solver_type == "bh1" else abs(expm1(z))) / 2 / positions[0]]
    else:
        weights = [h * w for w in weights_at(positions, z)]
    change = abs(expm1(z)) * out
    for weight, point in zip(weights, points, strict=True):
        change = change + weight * (point[1] - out)
    return change if predict_x0 else -t * change


def _check(order: int, solver_type: str) -> None:
    if order not in (1, 2, 3):
        raise InvalidRequestError(f"order: {order!r}, allowed are 1, 2, 3.", param="order")
    if solver_type not in ("bh1", "bh2"):
        raise InvalidRequestError(
            f"solver_type: {solver_type!r}, allowed are bh1, bh2.", param="solver_type"
        )
