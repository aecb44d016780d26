"""Langevin dynamics at one noise level as a program of its own: `tx.langevin`."""

from __future__ import annotations

from typing import Any

from ..checks import check_integer, check_number
from ..schedules.levels import explicit
from ..tracing.program import Program
from ..tracing.trace import trace

__all__ = ["langevin_program"]

MAX_UPDATES = 100_000  # three instructions each, of at most MAX_INSTRUCTIONS


def langevin_program(
    sigma: float,
    steps: int,
    *,
    eta: float | None = None,
    prediction: str = "score",
    coefficients: str = "textbook",
    denoise: bool = False,
    noise_level: float | None = None,
    initial_scale: float | None = None,
) -> Program:
    """A program of `steps` Langevin updates at one noise level.

    Args:
        sigma: The noise level, > 0, in the frame x = x0 + sigma*eps.
        steps: Number of updates.
        eta: Step size, default 0.1*sigma^2.
        prediction: What the network predicts.
        coefficients: "textbook" for x + eta*score + sqrt(2*eta)*z, or "as-printed" for x +
            sqrt(2*eta)*score + sqrt(eta)*z, which samples p^(1/T), T = sqrt(eta/8), instead of p.
        denoise: End with the network's estimate of the clean latent (one more network run).
        noise_level: What the network is told, default sigma.
        initial_scale: Factor on unit normal noise that makes the initial latent, default sigma.

    Raises:
        InvalidRequestError: A value is not allowed.
    """
    check_integer("steps", steps, 1, MAX_UPDATES)
    check_number("sigma", sigma)
    levels = None if noise_level is None else [noise_level] * steps
    schedule = explicit([sigma] * (steps + 1), levels, initial_scale=initial_scale)
    options: dict[str, Any] = {"eta": eta, "coefficients": coefficients, "denoise": denoise}
    return trace("langevin", schedule, prediction, **options)
