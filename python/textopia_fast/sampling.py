"""`sample`: runs a program against a denoiser, natively."""

from __future__ import annotations

import functools
import numbers
from collections.abc import Callable, Mapping, Sequence
from types import NoneType
from typing import Any

import numpy as np

from . import _core
from .arrays import FLOATS, Array, is_on_gpu, like, to_array, to_device, to_float32
from .checks import check_instance, check_mapping, check_number, check_numbers, check_share, refuse
from .denoiser import Denoiser
from .errors import InvalidRequestError
from .noise import Noise
from .noise_streams import CallersStream, Stream, lend
from .samplers import Program, StepByStep
from .stepping import NativeModel

__all__ = ["EvaluationCallback", "StepCallback", "check_watchers", "sample"]

StepCallback = Callable[[int, np.ndarray, "np.ndarray | None"], Any]
EvaluationCallback = Callable[[int, np.ndarray], "Mapping[str, Any] | None"]


_CHANGES = "is None, or a mapping of latents, mask, guidance, cond, uncond"


def sample(
    denoiser: Denoiser,
    x: Any,
    program: Program | StepByStep,
    cond: Mapping[str, Any] | None = None,
    uncond: Mapping[str, Any] | None = None,
    guidance: float | Sequence[float] = 1.0,
    noise: Noise | Stream | None = None,
    *,
    guidance_rescale: float = 0.0,
    known: Any = None,
    mask: Any = None,
    known_noise: Any = None,
    cancel: _core.CancelToken | None = None,
    deadline: float | None = None,
    progress: _core.Progress | None = None,
    on_step: StepCallback | None = None,
    wants_denoised: bool = False,
    on_evaluation: EvaluationCallback | None = None,
    on_device: bool | None = None,
) -> Any:
    """Samples: executes `program` from the start latents `x`, without Python between the steps.

    Args:
        denoiser: The network.
        x: float32 [B, ...], the start in the frame of the program, noise times
            `program.initial_scale` as a rule. NumPy, or anything that speaks DLPack on the CPU
            (torch, JAX); with a denoiser on a GPU also arrays on that GPU (torch, CuPy), in
            float16 and bfloat16, too, which are read where they are. Not changed.
        program: Made by `trace`, or a step-by-step sampler, made by `samplers.step_by_step`, which
            runs from Python: its guidance is one value, and `on_step` must not replace latents.
        cond: The network's other inputs by name, [B, ...] or [1, ...] each; as `x`, on the CPU or
            on the denoiser's GPU.
        uncond: The same for the negative half of classifier-free guidance.
        guidance: u + guidance * (c - u) is what the sampler sees; one value, or one per network
            evaluation. Where it is 1 the negative half is not computed, unless the program reads it
            alone (CFG++).
        noise: A `Noise`, or a stream that has already drawn the start; needed by programs that
            draw.
        guidance_rescale: phi in 0..1 of Lin et al. 2024, section 3.4: scales the guided network
            output of each image towards the standard deviation of its positive half.
        known: Clean latents [B, ...] of what is to stay, for programs traced with `inpaint`.
        mask: In 0..1, [B, ...] or what broadcasts to it: 1 is to be painted, 0 stays.
        known_noise: Unit normal [B, ...], what noises `known` between the steps.
        cancel: Ends the call at the next step or graph node when its `cancel()` is called.
        deadline: Seconds from now after which the call ends at the next step.
        progress: Counts steps, for whoever looks.
        on_step: `on_step(step, latents, denoised)` after each step, with copies; a returned array
            replaces the latents. This and `on_evaluation` are the only Python in the loop, and
            there is none without them.
        wants_denoised: Gives `on_step` the estimate of the clean sample, too (else None).
        on_evaluation: `on_evaluation(index, latents)` after each network evaluation, with a copy of
            the latents that the next one reads (of the sample, after the last). It returns None, or
            what changes from here on: "latents", "mask" (of their shape), "guidance" (a number),
            "cond" and "uncond" (values of the inputs that change).
        on_device: Whether the sample stays on the denoiser's GPU; None: where `x` is.

    Returns:
        The sample, float32 [B, ...]: a torch tensor when `x` is one, else NumPy. On a GPU an array
        of `x`'s library where `x` is on the GPU, too, else a `DeviceArray`, which
        torch.from_dlpack and cupy.from_dlpack take without a copy.

    Raises:
        InvalidRequestError: Shapes, dtypes, names or numbers that do not fit.
        GenerationCancelled, DeadlineExceededError: As asked for.
        NumericalError: NaN or infinity appeared; `details["step"]` says when.
        ExecutionError: The graph failed.
    """
    check_instance("denoiser", denoiser, Denoiser, "is a Denoiser")
    check_instance("program", program, (Program, StepByStep), "is what `trace` gives")
    kinds = (Noise, _core.NoiseStream, CallersStream, NoneType)
    check_instance("noise", noise, kinds, "is a Noise or its stream")
    check_instance("progress", progress, (_core.Progress, NoneType), "is a Progress")
    check_watchers(cancel, on_step=on_step, on_evaluation=on_evaluation)
    if program.prediction != denoiser.prediction:
        raise InvalidRequestError(
            f"program: made for networks that predict {program.prediction}, allowed here is "
            f"{denoiser.prediction}.",
            hint="`denoiser.trace` makes programs that fit.",
            param="program",
        )
    start: Array = (
        to_device(x, "x", denoiser.gpu, "float32") if is_on_gpu(x) else to_float32(x, "x")
    )
    if on_device is None:
        on_device = not isinstance(start, np.ndarray)
    elif on_device and denoiser.gpu is None:
        refuse("on_device", on_device, "is None or False with a denoiser on the CPU")
    if start.ndim < 1:
        raise InvalidRequestError(
            f"x: shape {start.shape}, allowed are latents [B, ...].", param="x"
        )
    stream = noise.stream(start.shape[0]) if isinstance(noise, Noise) else noise
    phi = check_share("guidance_rescale", guidance_rescale)
    if isinstance(program, StepByStep):
        for name, value in (("known", known), ("mask", mask), ("known_noise", known_noise)):
            if value is not None:
                refuse(name, value, "is nothing with a step-by-step sampler")
        if on_evaluation is not None:
            refuse("on_evaluation", on_evaluation, "is None with a step-by-step sampler")
        if on_device or not isinstance(start, np.ndarray):
            refuse("on_device", True, "is False, and x on the CPU, with a step-by-step sampler")
        if phi != 0.0:
            refuse("guidance_rescale", phi, "is 0 with a step-by-step sampler")
        scale = _guidance(guidance)
        if len(scale) != 1:
            refuse("guidance", guidance, "is one number with a step-by-step sampler")
        result = _step_by_step(
            denoiser,
            start,
            program,
            stream,
            {
                "cond": _conditioning(denoiser, "cond", cond),
                "uncond": _conditioning(denoiser, "uncond", uncond),
                "guidance": scale,
                "cancel": cancel,
            },
            timeout=_seconds(deadline),
            progress=progress,
            on_step=on_step,
            wants_denoised=bool(wants_denoised),
        )
        return like(result, x)
    blended = _inpainting(program, start.shape, known=known, mask=mask, known_noise=known_noise)
    run = functools.partial(
        _core.sample,
        denoiser._native,
        _native(program, phi),
        start,
        cond=_conditioning(denoiser, "cond", cond),
        uncond=_conditioning(denoiser, "uncond", uncond),
        guidance=_guidance(guidance),
        known=blended["known"],
        mask=blended["mask"],
        known_noise=blended["known_noise"],
        cancel=cancel,
        timeout=_seconds(deadline),
        progress=progress,
        on_step=on_step,
        wants_denoised=bool(wants_denoised),
        on_evaluation=None if on_evaluation is None else _typed(denoiser, on_evaluation),
        on_device=bool(on_device),
    )
    result = lend(stream, start.shape, program.intervals, lambda native: run(noise=native))
    return like(result, x)


def _step_by_step(
    denoiser: Denoiser,
    start: np.ndarray,
    sampler: StepByStep,
    stream: Stream | None,
    run: Mapping[str, Any],
    **watch: Any,
) -> np.ndarray:
    schedule = sampler.schedule
    if schedule.noise_input != denoiser.noise_input:
        raise InvalidRequestError(
            f"schedule: made for networks that take {schedule.noise_input}, allowed here is "
            f"{denoiser.noise_input}.",
            param="schedule",
        )
    m = NativeModel(denoiser, schedule, stream, run, **watch)
    result = sampler.function(m, m.start(start), schedule.sigmas, **dict(sampler.options))
    if not isinstance(result, np.ndarray) or result.shape != start.shape:
        raise InvalidRequestError(
            f"{sampler.name}: the sampler returned {type(result).__name__}, allowed is the final "
            f"latent, {start.shape}.",
            param="sampler",
        )
    return result.astype(np.float32, copy=False)


@functools.lru_cache(maxsize=64)
def _native(program: Program, phi: float) -> _core.Program:
    program = program.rescaled(phi)
    return _core.Program(
        program.to_native(),
        latents=program.x_registers,
        outputs=program.e_registers,
        result=program.result.index,
    )


def check_watchers(cancel: _core.CancelToken | None, **callbacks: Any) -> None:
    """Refuses a `cancel` that is no CancelToken, and callbacks that cannot be called."""
    check_instance("cancel", cancel, (_core.CancelToken, NoneType), "is a CancelToken")
    for name, callback in callbacks.items():
        if callback is not None and not callable(callback):
            refuse(name, callback, "is a function")


def _inpainting(
    program: Program, shape: tuple[int, ...], **given: Any
) -> dict[str, np.ndarray | None]:
    """The three arrays of inpainting in the latents' shape; all None without it."""
    arrays: dict[str, np.ndarray | None] = {}
    blends = program.blends
    for name, value in given.items():
        if (value is not None) != blends:
            refuse(name, value, "are latents, with a program that was traced with inpaint=True")
        if value is None:
            arrays[name] = None
            continue
        array = to_float32(value, name)
        low, high = (0.0, 1.0) if name == "mask" else (-np.inf, np.inf)
        if not (np.isfinite(array).all() and np.all((array >= low) & (array <= high))):
            refuse(name, value, f"are finite numbers{' 0..1' if name == 'mask' else ''}")
        try:
            arrays[name] = np.ascontiguousarray(np.broadcast_to(array, shape))
        except ValueError:
            raise InvalidRequestError(
                f"{name}: shape {array.shape}, allowed is {shape} or what broadcasts to it.",
                param=name,
            ) from None
    return arrays


def _conditioning(
    denoiser: Denoiser, name: str, values: Mapping[str, Any] | None
) -> dict[str, Array]:
    """Arrays in the dtypes of the graph; names that the graph does not have, and values that cannot
    have its dtype, are left for the core to report."""
    arrays: dict[str, Array] = {}
    for key, value in check_mapping(name, values, "is a mapping from input to array").items():
        dtype = denoiser.conditioning_dtypes.get(key)
        if is_on_gpu(value):
            converted = dtype if dtype in FLOATS else None
            arrays[key] = to_device(value, key, denoiser.gpu, converted)
            continue
        array = to_array(value, key)
        is_number = array.dtype.kind in "biuf" and dtype in np.sctypeDict
        arrays[key] = array.astype(dtype, copy=False) if is_number else array
    return arrays


def _typed(denoiser: Denoiser, on_evaluation: EvaluationCallback) -> EvaluationCallback:
    """The callback with its results in the dtypes that the core takes."""

    def call(index: int, latents: np.ndarray) -> dict[str, Any] | None:
        changes = check_mapping("on_evaluation", on_evaluation(index, latents), _CHANGES)
        for name, value in changes.items():
            if name in ("cond", "uncond"):
                changes[name] = _conditioning(denoiser, name, value)
            elif name == "guidance":
                changes[name] = check_number(name, value)
            elif name in ("latents", "mask"):
                changes[name] = to_float32(value, name)
            else:
                refuse("on_evaluation", name, _CHANGES)
        return changes

    return call


def _seconds(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    # A clock of 64-bit nanoseconds holds no more than 292 years.
    return min(max(check_number("deadline", deadline), 0.0), 1e9)


def _guidance(value: float | Sequence[float]) -> list[float]:
    if isinstance(value, numbers.Real):
        return [check_number("guidance", value)]
    return list(
        check_numbers("guidance", value, "are a number, or one per network evaluation, all finite")
    )
