"""Langevin dynamics with accept and reject, where the density is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import sqrt
from typing import Any

import numpy as np

from ..checks import refuse
from ..errors import InvalidRequestError
from ..tracing.registry import sampler

__all__ = ["mala"]


@sampler(
    "Metropolis-adjusted Langevin, where the density is known",
    update="a Langevin update, kept with probability min(1, p(x′)q(x;x′)/p(x)q(x′;x))",
    paper="Roberts & Tweedie 1996, Bernoulli 2(4)",
    is_traced=False,
)
def mala(
    m: Any,
    x: Any,
    sigmas: Sequence[float],
    log_density: Callable[[Any, float], Any],
    eta: float | None = None,
) -> Any:
    """Roberts & Tweedie 1996, section 1.4.2: Metropolis-adjusted Langevin, one per sigmas[:-1].

    A Langevin update y = x + eta*score + sqrt(2*eta)*z is taken with probability min(1,
    p(y)q(y, x) / p(x)q(x, y)), else the image stays: p is sampled without discretisation bias, also
    where the network's score is inexact. Runs step by step from Python over native network runs.
    Meant for a schedule that repeats one sigma.

    log_density: log_density(x [B, ...], sigma) -> [B], log p(x; sigma) up to a constant. eta: step
    size, default 0.1*sigma^2; about 0.57 accepted is best in many dimensions (Roberts & Rosenthal
    1998). `info` of a step has the share "accepted".
    """
    if not callable(log_density):
        refuse("log_density", log_density, "is a function (x, sigma) -> [B]")
    level = None
    for s in sigmas[:-1]:
        step = 0.1 * s * s if eta is None else eta
        if step <= 0.0:
            refuse("eta", step, "are numbers > 0")
        if s != level:
            level, x0 = s, m.denoise(x, s)
            score, density = (x0 - x) / (s * s), _densities(log_density, x, s)
        z = m.noise()
        y = x + step * score + sqrt(2 * step) * z
        y0 = m.denoise(y, s)
        y_score, y_density = (y0 - y) / (s * s), _densities(log_density, y, s)
        # |y - x - step*score|^2 = 2*step*|z|^2, and the same for the way back.
        back = _squares(x - y - step * y_score) / (4 * step) - _squares(z) / 2
        is_taken = np.log(m.uniform()) < y_density - density - back
        density = np.where(is_taken, y_density, density)
        mask = is_taken.reshape(-1, *[1] * (x.ndim - 1))
        x, x0 = np.where(mask, y, x), np.where(mask, y0, x0)
        score = np.where(mask, y_score, score)
        m.step(x, denoised=x0, info={"accepted": float(is_taken.mean())})
    return x


def _densities(log_density: Callable[[Any, float], Any], x: Any, s: float) -> Any:
    """float64 [B]."""
    found = np.asarray(log_density(x, s), np.float64)
    if found.shape != (len(x),) or np.isnan(found).any():
        raise InvalidRequestError(
            f"log_density: gave {found.dtype} {found.shape}, allowed are {len(x)} numbers, one per "
            "image, none NaN.",
            param="log_density",
        )
    return found


def _squares(x: Any) -> Any:
    """Squared norm of each image, float64 [B]."""
    flat = x.reshape(len(x), -1).astype(np.float64)
    return np.square(flat).sum(1)
