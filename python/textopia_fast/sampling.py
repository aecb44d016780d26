"""`sample`: runs a program against a denoiser, natively."""

from __future__ import annotations

import functools
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from . import _core
from .arrays import like, to_float32, to_numpy
from .denoiser import Denoiser
from .errors import InvalidRequestError
from .noise import Noise
from .samplers import Program

StepCallback = Callable[[int, np.ndarray, "np.ndarray | None"], Any]


def sample(
    denoiser: Denoiser,
    x: Any,
    program: Program,
    cond: Mapping[str, Any] | None = None,
    uncond: Mapping[str, Any] | None = None,
    guidance: float | Sequence[float] = 1.0,
    noise: Noise | _core.NoiseStream | None = None,
    *,
    cancel: _core.CancelToken | None = None,
    deadline: float | None = None,
    progress: _core.Progress | None = None,
    on_step: StepCallback | None = None,
    wants_denoised: bool = False,
) -> Any:
    """Samples: executes `program` from the start latents `x`, without Python between the steps.

    Args:
        denoiser: The network.
        x: float32 [B, ...], the start in the frame of the program, noise times
            `program.initial_scale` as a rule. NumPy, or anything that speaks DLPack on the CPU
            (torch, JAX). Not changed.
        program: Made by `trace`.
        cond: The network's other inputs by name, [B, ...] or [1, ...] each.
        uncond: The same for the negative half of classifier-free guidance.
        guidance: u + guidance * (c - u) is what the sampler sees; one value, or one per network
            evaluation. Where it is 1 the negative half is not computed.
        noise: A `Noise`, or a stream that has already drawn the start; needed by programs that
            draw.
        cancel: Ends the call at the next step or graph node when its `cancel()` is called.
        deadline: Seconds from now after which the call ends at the next step.
        progress: Counts steps, for whoever looks.
        on_step: `on_step(step, latents, denoised)` after each step, with copies; a returned array
            replaces the latents. This is the only Python in the loop, and there is none without it.
        wants_denoised: Gives `on_step` the estimate of the clean sample, too (else None).

    Returns:
        The sample, float32 [B, ...]: a torch tensor when `x` is one, else NumPy.

    Raises:
        InvalidRequestError: Shapes, dtypes, names or numbers that do not fit.
        GenerationCancelled, DeadlineExceededError: As asked for.
        NumericalError: NaN or infinity appeared; `details["step"]` says when.
        ExecutionError: The graph failed.
    """
    start = to_float32(x, "x")
    if start.ndim < 1:
        raise InvalidRequestError("x: a scalar; a batch of latents [B, ...] is needed.", param="x")
    stream = noise.stream(start.shape[0]) if isinstance(noise, Noise) else noise
    result = _core.sample(
        denoiser._native,
        _native(program),
        start,
        cond=_conditioning(denoiser, cond or {}),
        uncond=_conditioning(denoiser, uncond or {}),
        guidance=_guidance(guidance),
        noise=stream,
        cancel=cancel,
        timeout=_seconds(deadline),
        progress=progress,
        on_step=on_step,
        wants_denoised=wants_denoised,
    )
    return like(result, x)


@functools.lru_cache(maxsize=64)
def _native(program: Program) -> _core.Program:
    return _core.Program(
        program.to_native(),
        latents=program.x_registers,
        outputs=program.e_registers,
        result=program.result.index,
    )


def _conditioning(denoiser: Denoiser, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Arrays in the dtypes of the graph; names that the graph does not have, and values that cannot
    have its dtype, are left for the core to report."""
    dtypes = {info.name: info.dtype for info in denoiser.session.inputs}
    arrays = {}
    for name, value in values.items():
        array = to_numpy(value, name)
        dtype = dtypes.get(name)
        is_number = array.dtype.kind in "biuf" and dtype in np.sctypeDict
        arrays[name] = array.astype(dtype, copy=False) if is_number else array
    return arrays


def _guidance(value: float | Sequence[float]) -> list[float]:
    values = [value] if isinstance(value, numbers.Real) else list(value)
    try:
        return [float(item) for item in values]
    except (TypeError, ValueError) as error:
        raise InvalidRequestError(
            f"guidance: got {value!r:.80}; a number, or one per network evaluation, is needed.",
            param="guidance",
        ) from error


def _seconds(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    if not isinstance(deadline, numbers.Real) or not math.isfinite(deadline):
        raise InvalidRequestError(
            f"deadline: got {deadline!r:.80}; a finite number of seconds is needed.",
            param="deadline",
        )
    return float(deadline)
