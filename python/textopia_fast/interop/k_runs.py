"""How a k-diffusion call is run: by the native loop, or around the caller's model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import exp, sqrt
from typing import Any

import numpy as np

from ..checks import check_numbers, refuse
from ..denoiser import Denoiser
from ..errors import InvalidRequestError
from ..noise import Noise
from ..samplers import Schedule, TrainingTable, schedules, step_by_step, trace
from ..sampling import sample
from ..tracing.program import Combine, Denoise, Program, Register, Step
from ..tracing.registry import get
from ..tracing.trace import seen_sigmas
from .segments import Registers, Segment, cut, widened

__all__ = ["KRun", "run_adaptive", "run_callable", "run_native"]

_NATIVE_ARGUMENTS = ("cond", "uncond", "guidance", "noise", "cancel", "deadline", "table")
_START = Register("x", 0)


@dataclass
class KRun:
    """The arguments of one call, as k-diffusion names them."""

    name: str
    sampler: str
    options: dict[str, Any]
    x: Any
    sigmas: Any
    extra_args: Mapping[str, Any]
    callback: Callable[[dict[str, Any]], Any] | None
    disable: bool | None
    noise_sampler: Callable[[Any, Any], Any] | None

    def levels(self) -> tuple[float, ...]:
        """The checked sigmas."""
        try:
            levels = tuple(float(sigma) for sigma in self.sigmas)
        except (TypeError, ValueError):
            levels = ()
        falls = all(b <= a for a, b in pairwise(levels))
        if len(levels) < 2 or not falls or not all(map(np.isfinite, levels)):
            raise InvalidRequestError(
                f"{self.name}: sigmas {levels[:4]!r:.80}, allowed are two or more finite numbers "
                "from high to low.",
                param="sigmas",
            )
        return levels

    def check_x(self) -> None:
        """x must be a floating-point array with a batch axis."""
        kind = str(getattr(self.x, "dtype", type(self.x).__name__))
        if "float" not in kind or not getattr(self.x, "ndim", 0):
            raise InvalidRequestError(
                f"{self.name}: x is {kind} with shape {getattr(self.x, 'shape', None)}, allowed is "
                "a floating-point array [B, ...].",
                param="x",
            )

    def draw(self, start: float, end: float) -> Any:
        """Fresh unit normal noise like x for the interval between two sigmas."""
        x = self.x
        if self.noise_sampler is None:
            torch = _torch_of(x)
            if torch is not None:
                return torch.randn_like(x)
            return np.random.standard_normal(x.shape).astype(x.dtype)  # noqa: NPY002
        noise = self.noise_sampler(self.scalar(start), self.scalar(end))
        if getattr(noise, "shape", None) != x.shape:
            raise InvalidRequestError(
                f"{self.name}: noise_sampler gave {getattr(noise, 'shape', type(noise).__name__)}, "
                f"allowed is the shape of x, {tuple(x.shape)}.",
                param="noise_sampler",
            )
        return noise

    def scalar(self, sigma: float) -> Any:
        """A sigma in the caller's form."""
        torch = _torch_of(self.x)
        if torch is not None:
            return torch.tensor(sigma, dtype=self.x.dtype, device=self.x.device)
        return self.x.dtype.type(sigma)

    def call(self, i: int, x: Any, sigma_hat: float, denoised: Any) -> None:
        """The callback of step i, if there is one."""
        if self.callback is not None:
            self.callback(
                {
                    "x": x,
                    "i": i,
                    "sigma": self.sigmas[i],
                    "sigma_hat": self.scalar(sigma_hat),
                    "denoised": denoised,
                }
            )


def run_callable(model: Callable[..., Any], given: KRun) -> Any:
    """The program with the caller's model as its network."""
    given.check_x()
    levels = given.levels()
    schedule = schedules.explicit(levels)
    program = trace(given.sampler, schedule, "sample", **given.options)
    seen = seen_sigmas(given.sampler, schedule, given.options)
    before, segments = cut(program)
    registers = Registers()
    work = widened(given.x)
    registers[_START] = work
    torch = _torch_of(given.x)
    ones = given.x.new_ones([len(work)]) if torch else np.ones(len(work), given.x.dtype)
    step = 0
    shown: tuple[Any, ...] = ()
    intervals = iter(program.intervals)

    def draw() -> Any:
        return _as(work, given.draw(*(next(intervals) or levels[step : step + 2])))

    with _bar(given.disable, len(levels) - 1) as advance:

        def on_step(done: Step) -> None:
            nonlocal step, shown
            given.call(done.index, *shown)
            step, shown = step + 1, ()
            advance()

        registers.run(before, draw)
        for run, segment in enumerate(segments):
            latents = _as(given.x, _input(registers, segment, seen[run]))
            denoised = model(latents, ones * seen[run], **given.extra_args)
            _check_output(given, denoised)
            shown = shown or (latents, seen[run], denoised)
            registers[segment.output] = _as(work, denoised)
            registers.run(segment.body, draw, on_step)
    return _as(given.x, registers[program.result])


def run_native(model: Denoiser, given: KRun) -> Any:
    """The program in the native loop."""
    given.check_x()
    levels = given.levels()
    extra = _native_extra(given)
    schedule = _native_schedule(model, levels, extra.pop("table", None), given.name)
    program = model.trace(given.sampler, schedule, **given.options)
    torch = _torch_of(given.x)
    start = given.x.detach().cpu() if torch else given.x
    if program.draw_count and "noise" not in extra:
        extra["noise"] = _drawn(program, levels, given)
    seen = _hats(program, seen_sigmas(given.sampler, schedule, given.options))
    latest = start

    with _bar(given.disable, len(levels) - 1) as advance:

        def on_step(step: int, latents: np.ndarray, denoised: np.ndarray | None) -> None:
            nonlocal latest
            given.call(step, _as(given.x, latest), seen[step], _as(given.x, denoised))
            latest = latents
            advance()

        is_watched = given.callback is not None or advance.is_shown
        result = sample(
            model,
            start,
            program,
            on_step=on_step if is_watched else None,
            wants_denoised=given.callback is not None,
            **extra,
        )
    return _as(given.x, result)


def run_adaptive(model: Any, given: KRun) -> tuple[Any, dict[str, int]]:
    """(sample, counts of steps) of an adaptive sampler between the two levels of `given`."""
    given.check_x()
    levels = check_numbers("sigma_min, sigma_max", given.sigmas)
    if min(levels) <= 0.0:
        refuse("sigma_min, sigma_max", levels, "are finite numbers > 0")
    function = get(given.sampler).function
    falling = tuple(sorted(levels, reverse=True))  # towards more noise it is an inversion
    options = dict(step_by_step(given.sampler, falling, **given.options).options)  # checked
    with _bar(given.disable, None) as advance:
        if not isinstance(model, Denoiser):
            m = _CallersModel(model, given, advance)
            result = function(m, widened(given.x), levels, **options)
            return _as(given.x, result), m.counts
        extra = _native_extra(given)
        schedule = _native_schedule(model, falling, extra.pop("table", None), given.name)
        made: list[_AdaptiveModel] = []

        def sampler(native: Any, x: Any, _: Any) -> Any:
            made.append(_NativeModel(native, given, advance, "noise" in extra))
            return function(made[0], x, levels, **options)

        start = given.x.detach().cpu() if _torch_of(given.x) else given.x
        program = step_by_step(sampler, schedule, model.prediction)
        result = sample(model, start, program, **extra)
        return _as(given.x, result), made[0].counts


class _AdaptiveModel:
    """The `m` of an adaptive sampler, with k-diffusion's callback and progress bar."""

    def __init__(self, given: KRun, advance: _Advance) -> None:
        self._given, self._advance = given, advance
        self.counts = dict.fromkeys(("steps", "nfe", "n_accept", "n_reject"), 0)

    def step(self, x: Any, denoised: Any, info: Mapping[str, Any]) -> None:
        given = self._given
        self.counts = {name: info[name] for name in self.counts}
        if given.callback is not None:
            sigma, t = given.scalar(exp(-info["t"])), given.scalar(info["t"])
            shown = {"x": _as(given.x, x), "denoised": _as(given.x, denoised)}
            error = given.scalar(info["error"])
            told = {"sigma": sigma, "sigma_hat": sigma, "t": t, "t_up": t, **shown}
            told |= {"i": info["steps"] - 1, "error": error, "h": info["h"], **self.counts}
            given.callback(told)


class _CallersModel(_AdaptiveModel):
    """Around a model of the caller."""

    def __init__(self, model: Callable[..., Any], given: KRun, advance: _Advance) -> None:
        super().__init__(given, advance)
        self._model = model

    def denoise(self, x: Any, sigma: float) -> Any:
        given = self._given
        latents = _as(given.x, x)
        torch = _torch_of(given.x)
        ones = latents.new_ones([len(x)]) if torch else np.ones(len(x), latents.dtype)
        denoised = self._model(latents, ones * sigma, **given.extra_args)
        _check_output(given, denoised)
        self._advance()
        return _as(x, denoised)

    def noise(self, sigma: float, sigma_next: float) -> Any:
        return _as(widened(self._given.x), self._given.draw(sigma, sigma_next))


class _NativeModel(_AdaptiveModel):
    """Around the native network runs of a Denoiser."""

    def __init__(self, native: Any, given: KRun, advance: _Advance, draws: bool) -> None:
        """draws: the noise is that of the run, else the caller's or a global generator's."""
        super().__init__(given, advance)
        self._native, self._draws = native, draws

    def denoise(self, x: Any, sigma: float) -> Any:
        self._advance()
        return self._native.denoise(x, sigma)

    def noise(self, sigma: float, sigma_next: float) -> Any:
        if self._draws:
            return self._native.noise(sigma, sigma_next)
        drawn = self._given.draw(sigma, sigma_next)
        return np.asarray(drawn.detach().cpu() if _torch_of(drawn) else drawn, np.float32)

    def step(self, x: Any, denoised: Any, info: Mapping[str, Any]) -> None:
        super().step(x, denoised, info)
        self._native.step(x, denoised, info)


def _native_extra(given: KRun) -> dict[str, Any]:
    """The extra_args of a native run."""
    extra = dict(given.extra_args)
    unknown = [key for key in extra if key not in _NATIVE_ARGUMENTS]
    if unknown:
        raise InvalidRequestError(
            f"{given.name}: extra_args {', '.join(map(repr, unknown))} not known, allowed with a "
            f"Denoiser are {', '.join(_NATIVE_ARGUMENTS)}.",
            param="extra_args",
        )
    return extra


def _check_output(given: KRun, denoised: Any) -> None:
    if getattr(denoised, "shape", None) != given.x.shape:
        raise InvalidRequestError(
            f"{given.name}: the model gave {getattr(denoised, 'shape', type(denoised).__name__)}, "
            f"allowed is the shape of x, {tuple(given.x.shape)}.",
            param="model",
        )


def _drawn(program: Program, levels: tuple[float, ...], given: KRun) -> Noise:
    """The noise of a whole run, in the order of the program; a draw that names no interval stands
    between the levels of its step."""
    intervals, step, draws = iter(program.intervals), 0, []
    for i in program.instructions:
        if isinstance(i, Step):
            step += 1
        elif isinstance(i, Combine) and i.noise:
            z = given.draw(*(next(intervals) or levels[step : step + 2]))
            draws.append(z.detach().cpu().float().numpy() if _torch_of(given.x) else z)
    return Noise.given(np.stack(draws))


def _hats(program: Program, seen: tuple[float, ...]) -> list[float]:
    """Per step, the sigma of its first network run."""
    hats, run, is_new = [], 0, True
    for i in program.instructions:
        if isinstance(i, Denoise):
            if is_new:
                hats.append(seen[run])
            run, is_new = run + 1, False
        elif isinstance(i, Step):
            is_new = True
    return hats


def _native_schedule(
    model: Denoiser, levels: tuple[float, ...], table: TrainingTable | None, name: str
) -> Schedule:
    if model.noise_input != "timestep":
        return schedules.explicit(levels, noise_input=model.noise_input)
    if not isinstance(table, TrainingTable):
        raise InvalidRequestError(
            f"{name}: the network takes timesteps, so extra_args needs table, a TrainingTable.",
            hint="For Stable Diffusion: TrainingTable(beta_start=0.00085, beta_end=0.012, "
            'beta_schedule="scaled_linear").',
            param="extra_args",
        )
    return schedules.explicit(levels, table=table)


def _input(registers: Registers, segment: Segment, sigma: float) -> Any:
    """The latents in the frame of the caller: the program scales them by 1/sqrt(1 + sigma^2)."""
    factor = segment.factor * sqrt(1.0 + sigma * sigma)
    latents = registers[segment.source]
    return latents if abs(factor - 1.0) < 1e-12 else latents * factor


def _torch_of(x: Any) -> Any:
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(x, torch.Tensor) else None


def _as(x: Any, array: Any) -> Any:
    """`array` on the device and in the dtype of x; None stays."""
    torch = _torch_of(x)
    if array is None:
        return None
    if torch is not None:
        return torch.as_tensor(array).to(x.device, x.dtype)
    return np.asarray(array).astype(x.dtype, copy=False)


class _Advance:
    def __init__(self, bar: Any) -> None:
        self._bar = bar
        self.is_shown = bar is not None and not bar.disable

    def __call__(self) -> None:
        if self._bar is not None:
            self._bar.update()


@contextmanager
def _bar(disable: bool | None, total: int | None) -> Iterator[_Advance]:
    """tqdm's progress bar where it is installed; `disable` as it takes it (None: on terminals)."""
    if disable:
        yield _Advance(None)
        return
    try:
        from tqdm.auto import tqdm
    except ImportError:
        yield _Advance(None)
        return
    with tqdm(total=total, disable=disable) as bar:
        yield _Advance(bar)
