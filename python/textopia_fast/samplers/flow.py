"""Flow matching: latents y = (1-tau)*x0 + tau*eps and a network that gives their velocity.

Letters: s, t noise levels before and after a step, tau = s/(1+s) and tau_next the times of the
flow; y is in the frame of the flow, x/(1+s).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..tracing.registry import sampler
from .euler import pairs

__all__ = ["flow_euler", "flow_heun"]


@sampler(
    "euler in the time of a flow, for flow matching models",
    update="x + (t − s)·v",
    paper="Lipman et al. 2023, arXiv 2210.02747",
)
def flow_euler(m: Any, x: Any, sigmas: Sequence[float], stochastic: bool = False) -> Any:
    """Lipman et al. 2023 (flow matching), equation 1 by Euler's method, from tau = 1 to 0.

    stochastic: jump to the clean latent and add fresh noise for the next time instead.
    """
    y = x / (1 + sigmas[0])
    for s, t in pairs(sigmas):
        tau, tau_next = s / (1 + s), t / (1 + t)
        x0 = m.denoise(y * (1 + s), s)
        v = (y - x0) / tau
        if stochastic:
            y = (1 - tau_next) * x0
            y = y + tau_next * m.noise() if tau_next > 0.0 else y
        else:
            y = y + (tau_next - tau) * v
        m.step(y, denoised=x0)
    return y


@sampler(
    "heun in the time of a flow, for flow matching models",
    update="x + (t − s)·(v + v′)/2, v′ at x + (t − s)·v and t",
    paper="Lipman et al. 2023, arXiv 2210.02747",
)
def flow_heun(m: Any, x: Any, sigmas: Sequence[float]) -> Any:
    """Lipman et al. 2023 (flow matching), equation 1 by the trapezoidal rule; Euler to 0."""
    y = x / (1 + sigmas[0])
    for s, t in pairs(sigmas):
        tau, tau_next = s / (1 + s), t / (1 + t)
        x0 = m.denoise(y * (1 + s), s)
        v = (y - x0) / tau
        if t > 0.0:
            ahead = y + (tau_next - tau) * v
            v = (v + (ahead - m.denoise(ahead * (1 + t), t)) / tau_next) / 2
        y = y + (tau_next - tau) * v
        m.step(y, denoised=x0)
    return y
