"""What programs mean, on plain arrays: an executor, and sampler functions without tracing.

Both work on NumPy arrays and on anything else with + - * /, `.clip`, `.reshape` and `.sum` (torch
tensors).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .prediction import coefficients
from .program import (
    Blend,
    Clamp,
    Combine,
    Denoise,
    LangevinStep,
    Program,
    Rescale,
    Step,
    Term,
    Threshold,
)
from .trace import langevin_factor

__all__ = ["ArrayModel", "run", "thresholded"]


def run(
    program: Program,
    network: Callable[[Any, float], Any],
    x: Any,
    draw: Callable[[], Any],
    guidance: float | Callable[[int], float] = 1.0,
    on_step: Callable[[int, Any, Any], Any] | None = None,
    *,
    known: Any = None,
    mask: Any = None,
    known_noise: Any = None,
) -> Any:
    """Executes a program.

    Args:
        program: What to run.
        network: (x [B, ...], noise level) -> output [B, ...], or a pair of outputs (negative,
            positive) that is mixed as negative + guidance*(positive - negative). One output alone
            is both halves.
        x: The initial latent, [B, ...], already scaled.
        draw: Gives a fresh unit normal array like x at each call.
        guidance: A number, or a function of the index of the network run.
        on_step: Called as on_step(index, x, denoised) at each STEP; denoised is None where there is
            none.
        known, mask, known_noise: Arrays like x, for programs that blend; see `Blend`.

    Returns:
        The sample, like x.
    """
    registers: dict[Any, Any] = {("x", 0): x}
    positive: dict[Any, Any] = {}
    calls = 0
    for i in program.instructions:
        if type(i) is Denoise:
            output = network(registers[i.src] * i.scale_in, i.noise_level)
            registers["u", i.dst.index] = output
            if isinstance(output, tuple):
                negative, positive[i.dst] = output
                registers["u", i.dst.index] = negative
                g = guidance(calls) if callable(guidance) else guidance
                output = negative + g * (positive[i.dst] - negative)
            registers[i.dst] = output
            calls += 1
        elif type(i) is Rescale:
            if i.output in positive:
                registers[i.output] = _rescaled(registers[i.output], positive[i.output], i.phi)
        elif type(i) is Combine:
            total = _sum(registers, i.terms)
            if i.noise:
                fresh = i.noise * draw()
                total = fresh if total is None else total + fresh
            registers[i.dst] = total
        elif type(i) is Clamp:
            registers[i.dst] = registers[i.src].clip(i.low, i.high)
        elif type(i) is Threshold:
            registers[i.dst] = thresholded(registers[i.src], i.ratio, i.high)
        elif type(i) is LangevinStep:
            registers[i.dst] = _langevin_step(
                registers[i.src], registers[i.score], draw(), i.factor, i.norm
            )
        elif type(i) is Blend:
            clean = i.known * known + i.noise * known_noise
            registers[i.dst] = mask * registers[i.src] + (1.0 - mask) * clean
        elif on_step is not None and isinstance(i, Step):
            on_step(i.index, registers[i.x], _sum(registers, i.denoised))
    return registers[program.result]


class ArrayModel:
    """The `m` of a sampler function on arrays: sampler(ArrayModel(...), x, sigmas) -> sample.

    Args:
        network: (x, noise level) -> output.
        draw: Gives a fresh unit normal array at each call.
        noise_level: sigma -> what the network is told (a Schedule's `noise_level`).
        prediction: What the network predicts.
        on_step: As in `run`.
        guidance: For networks that give a pair of outputs, as in `run`.
    """

    def __init__(
        self,
        network: Callable[[Any, float], Any],
        draw: Callable[[], Any],
        noise_level: Callable[[float], float],
        prediction: str = "epsilon",
        on_step: Callable[[int, Any, Any], Any] | None = None,
        guidance: float = 1.0,
    ) -> None:
        self._network = network
        self._guidance = guidance
        self._draw = draw
        self._noise_level = noise_level
        self._coefficients = coefficients(prediction)
        self._on_step = on_step
        self.step_count = 0

    def denoise(self, x: Any, sigma: float) -> Any:
        """The estimate of the clean latent at x."""
        return self.denoise_halves(x, sigma)[0]

    def denoise_halves(self, x: Any, sigma: float) -> tuple[Any, Any]:
        """The estimate of the clean latent at x, and that of the negative half alone."""
        scale_in, c_skip, c_out = self._coefficients(sigma)
        output = self._network(x * scale_in, self._noise_level(sigma))
        negative, positive = output if isinstance(output, tuple) else (output, output)
        guided = negative + self._guidance * (positive - negative)
        return c_skip * x + c_out * guided, c_skip * x + c_out * negative

    def score(self, x: Any, sigma: float) -> Any:
        """The gradient of log p(x; sigma)."""
        return (self.denoise(x, sigma) - x) / (sigma * sigma)

    def noise(self, sigma: float | None = None, sigma_next: float | None = None) -> Any:
        """A fresh unit normal latent; the interval is not looked at."""
        return self._draw()

    def clamp(self, x: Any, low: float, high: float) -> Any:
        """min(max(x, low), high)."""
        return x.clip(low, high)

    def threshold(self, x: Any, ratio: float, high: float) -> Any:
        """Dynamic thresholding."""
        return thresholded(x, ratio, high)

    def langevin_step(
        self, x: Any, score: Any, *, snr: float, alpha: float = 1.0, norm: str = "sample"
    ) -> Any:
        """One Langevin update whose step is set by a signal-to-noise ratio."""
        return _langevin_step(x, score, self._draw(), langevin_factor(snr, alpha, norm), norm)

    def keep(self, x: Any) -> Any:
        """x itself."""
        return x

    def step(self, x: Any, denoised: Any = None) -> None:
        """Ends a step."""
        if self._on_step is not None:
            self._on_step(self.step_count, x, denoised)
        self.step_count += 1


def _sum(registers: dict[Any, Any], terms: tuple[Term, ...]) -> Any:
    total = None
    for register, weight in terms:
        part = weight * registers[register]
        total = part if total is None else total + part
    return total


def thresholded(x: Any, ratio: float, high: float) -> Any:
    """Dynamic thresholding per image of an array [B, ...]; see `Threshold`."""
    magnitudes = abs(x).reshape(x.shape[0], -1)
    if hasattr(magnitudes, "quantile"):  # torch
        bounds = magnitudes.quantile(ratio, dim=1).clamp(1.0, high)
    else:
        bounds = np.quantile(magnitudes, ratio, axis=1).clip(1.0, high).astype(x.dtype)
    bounds = bounds.reshape(-1, *[1] * (len(x.shape) - 1))
    return x.clip(-bounds, bounds) / bounds


def _rescaled(guided: Any, positive: Any, phi: float) -> Any:
    axes = tuple(range(1, len(guided.shape)))
    ratio = positive.std(axes, keepdims=True) / guided.std(axes, keepdims=True)
    return guided * (phi * ratio + (1.0 - phi))


def _langevin_step(x: Any, score: Any, z: Any, factor: float, norm: str) -> Any:
    z_norm, score_norm = _norms(z), _norms(score)
    if norm == "batch":
        z_norm, score_norm = z_norm.mean(), score_norm.mean()
    step = factor * (z_norm / score_norm) ** 2
    if norm == "sample":
        step = step.reshape(-1, *[1] * (len(x.shape) - 1))
    return x + step * score + (2 * step) ** 0.5 * z


def _norms(x: Any) -> Any:
    flat = x.reshape(x.shape[0], -1)
    return (flat * flat).sum(1) ** 0.5
