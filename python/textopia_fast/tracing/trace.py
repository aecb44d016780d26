"""Tracing: runs a sampler once on symbols and makes a program of what it did.

A sampler is a function `sampler(m, x, sigmas, **options) -> x` in the frame x = x0 + sigma*eps.
What it may use:

    m.denoise(x, sigma)          the network's estimate of the clean latent x0
    m.denoise_halves(x, sigma)   that, and the estimate of the unconditional half alone (CFG++)
    m.score(x, sigma)            (x0 - x) / sigma^2
    m.noise()                    a fresh unit normal latent; m.noise(sigma, sigma_next) where it is
                                 what a Brownian path does between two noise levels
    m.clamp(x0, low, high)       element-wise
    m.threshold(x0, ratio, high)  dynamic thresholding, image by image
    m.langevin_step(x, score, snr=..., alpha=1.0, norm="sample")
    m.keep(p)                    p as a latent of its own, for what is carried through many steps
    m.step(x, denoised=x0)       once per step: progress, cancellation, preview

and + - * / with numbers. Sums stay symbolic until the network (or a clamp, a step) needs them; then
one fused COMBINE makes them. A latent times a number is not made: the number is folded into the
network's input scale. Draws that no weight refers to are dropped.

A trace of more than 400,000 instructions, or whose sums write more than 5 million weights, ends
with an error: so does a sampler that loops for ever. (A loop that touches no latent is not seen.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..checks import check_choice, check_number, check_numbers, refuse
from ..errors import InvalidRequestError
from ..schedules.levels import Schedule, check_falling, explicit
from . import registry
from .blame import add_line
from .lowering import Node, draws_used, lower, operand_count
from .options import bind_options, is_own, takes
from .prediction import PREDICTIONS, coefficients
from .program import MAX_OPERANDS, Blend, Clamp, Denoise, LangevinStep, Program, Step, Threshold
from .recording import Recording
from .symbols import Linear

__all__ = ["Sampler", "Tracer", "langevin_factor", "make_program", "seen_sigmas", "trace"]

Sampler = Callable[..., Any]
"""A function `sampler(m, x, sigmas, **options) -> x`."""

_LEVELS = "are two noise levels >= 0"


class Tracer(Recording):
    """The `m` of a sampler while it is traced."""

    def __init__(
        self,
        noise_level: Callable[[float], float],
        prediction: str,
        inpaint_sigmas: Sequence[float] | None = None,
        threshold: tuple[float, float] | None = None,
        whole_levels: bool = False,
    ) -> None:
        """`inpaint_sigmas`: the schedule's noise levels, for inpainting; None without. `threshold`:
        (ratio, high) of dynamic thresholding of every estimate; None without. `whole_levels`:
        calls between two levels see the known part at the lower one (diffusers'
        KDPM2DiscreteScheduler), and not at their own."""
        super().__init__()
        self._noise_level = noise_level
        self._coefficients = coefficients(prediction)
        self._levels: dict[float, tuple[float, float, float, float]] = {}
        self._threshold = threshold
        self.step_count = 0
        self.initial = Linear(self, {0: 1.0})
        self._inpaint_sigmas = inpaint_sigmas
        self._whole_levels = whole_levels
        self.intervals: dict[int, tuple[float, float]] = {}  # noise value -> what it stands between
        self._blends: dict[int, int] = {}  # blended value -> its node
        self._open_blends: set[int] = set()  # those whose frame no DENOISE has shown yet
        self._calls_in_step = 0

    def denoise(self, x: Linear, sigma: float) -> Linear:
        """The estimate of the clean latent at x, seen at noise level sigma > 0."""
        return self._limited(*self._denoised(x, sigma))

    def denoise_halves(self, x: Linear, sigma: float) -> tuple[Linear, Linear]:
        """(the guided estimate, that of the unconditional half alone) at x, seen at sigma > 0."""
        skip, output, c_out = self._denoised(x, sigma)
        half = self._value("u")
        self.halves[half] = output
        return self._limited(skip, output, c_out), Linear(self, {**skip, half: c_out})

    def _limited(self, skip: dict[int, float], output: int, c_out: float) -> Linear:
        estimate = Linear(self, {**skip, output: c_out})
        return self.threshold(estimate, *self._threshold) if self._threshold else estimate

    def _denoised(self, x: Linear, sigma: float) -> tuple[dict[int, float], int, float]:
        """What the estimate is made of: latents with their weights, the output and its weight."""
        self._expect("denoise", x)
        scale_in, c_skip, c_out, level = self._level("denoise", sigma)
        source, scale = self._scaled(x)
        if self._inpaint_sigmas is not None:
            source = self._blended_input(x, source, scale, float(sigma))
        scale_in *= scale
        if abs(scale_in - 1.0) < 1e-15:
            scale_in = 1.0
        output = self._value("e")
        self._record(Node(Denoise, output, {source: 1.0}, (scale_in, level)))
        skip = c_skip * scale
        return {source: skip} if skip else {}, output, c_out

    def score(self, x: Linear, sigma: float) -> Linear:
        """The gradient of log p(x; sigma): (x0 - x) / sigma^2."""
        denoised = self.denoise(x, sigma)
        return (denoised - x) / (float(sigma) * float(sigma))

    def noise(self, sigma: float | None = None, sigma_next: float | None = None) -> Linear:
        """A fresh unit normal latent.

        sigma, sigma_next: the levels between which it is the increment of a Brownian path.
        """
        value = self._value("n")
        if sigma is not None or sigma_next is not None:
            start, end = check_numbers("m.noise", (sigma, sigma_next), _LEVELS)
            if min(start, end) < 0.0:
                refuse("m.noise", (start, end), _LEVELS)
            self.intervals[value] = (start, end)
        return Linear(self, {value: 1.0})

    def clamp(self, x: Linear, low: float, high: float) -> Linear:
        """min(max(x, low), high), element by element."""
        self._expect("clamp", x)
        low, high = check_number("m.clamp", low), check_number("m.clamp", high)
        if not low < high:
            raise InvalidRequestError(
                f"m.clamp: bounds {low!r}, {high!r}, allowed are low < high.", param="sampler"
            )
        source = self._stored(x)
        clamped = self._value("x")
        self._record(Node(Clamp, clamped, {source: 1.0}, (low, high)))
        return Linear(self, {clamped: 1.0})

    def threshold(self, x: Linear, ratio: float, high: float) -> Linear:
        """min(max(x, -s), s)/s, s the `ratio` quantile of |x| per image, in 1..high."""
        self._expect("threshold", x)
        ratio, high = _threshold((ratio, high))
        source = self._stored(x)
        limited = self._value("x")
        self._record(Node(Threshold, limited, {source: 1.0}, (ratio, high)))
        return Linear(self, {limited: 1.0})

    def langevin_step(
        self, x: Linear, score: Linear, *, snr: float, alpha: float = 1.0, norm: str = "sample"
    ) -> Linear:
        """One Langevin update with a step from a signal-to-noise ratio (Song et al. 2021)."""
        self._expect("langevin_step", x)
        self._expect("langevin_step", score)
        factor = langevin_factor(snr, alpha, norm)
        source, gradient = self._stored(x), self._stored(score)
        if source == gradient:
            raise InvalidRequestError(
                "m.langevin_step: x and score are the same latent.", param="sampler"
            )
        draw, moved = self._value("n"), self._value("x")
        operands = {source: 1.0, gradient: 1.0}
        self._record(Node(LangevinStep, moved, operands, (gradient, factor, norm), draw))
        return Linear(self, {moved: 1.0})

    def keep(self, x: Linear) -> Linear:
        """x, made now: without it, what a sampler carries along grows by the terms of each step."""
        self._expect("keep", x)
        self._stored(x)
        return x

    def step(self, x: Linear, denoised: Linear | None = None) -> None:
        """Ends a step: x is the latent now, denoised what a preview should show."""
        self._expect("step", x)
        current = self._stored(x)
        if self._inpaint_sigmas is not None:
            current = self._blend_step(x, current)
        operands = {current: 0.0}
        if denoised is not None:
            self._expect("step", denoised)
            if operand_count(denoised.weights, self.kinds) > MAX_OPERANDS:
                self._stored(denoised)
            for value, weight in denoised.weights.items():
                operands[value] = weight
        self._record(Node(Step, -1, operands, (self.step_count, current)))
        self.step_count += 1

    def finish(self, x: Any) -> int:
        """The value of the sampler's result."""
        if not self._is_own(x):
            raise InvalidRequestError(
                f"trace: the sampler returned {type(x).__name__}, allowed is the final latent.",
                param="sampler",
            )
        result = self._stored(x)
        self._check_blends(result)
        return result

    def _blend(self, source: int, known: float, noise: float) -> int:
        blended = self._value("x")
        self._blends[blended] = len(self.nodes)
        self._record(Node(Blend, blended, {source: 1.0}, (known, noise)))
        return blended

    def _blend_step(self, x: Linear, current: int) -> int:
        """Blends the latent of a step; `x` goes on as what came out.

        The frame is taken to be x0 + sigma*eps until a DENOISE reads the latent: its factor on it
        says which frame the sampler holds. After the last DENOISE the known part is clean.
        """
        sigmas = self._inpaint_sigmas or (0.0,)
        blended = self._blend(current, 1.0, sigmas[min(self.step_count + 1, len(sigmas) - 1)])
        self._open_blends.add(blended)
        self._calls_in_step = 0
        x.weights, x.base, x.scale = {blended: 1.0}, x, 1.0
        return blended

    def _blended_input(self, x: Linear, source: int, scale: float, sigma: float) -> int:
        """What the network reads: of the second and later calls in a step blended, too, as by
        diffusers' schedulers of second order, whose every call is a step of the pipeline."""
        first = self._calls_in_step == 0
        self._calls_in_step += 1
        if source in self._open_blends:
            self._open_blends.discard(source)
            node = self._blends[source]
            self.nodes[node] = self.nodes[node]._replace(facts=(1.0 / scale, sigma / scale))
        if first or source in self._blends:
            return source
        if self._whole_levels and self._inpaint_sigmas is not None:
            sigma = self._inpaint_sigmas[self.step_count + 1]
        blended = self._blend(source, 1.0 / scale, sigma / scale)
        if x.base.weights == {source: 1.0}:
            x.base.weights = {blended: 1.0}
        x.weights = {blended: scale}
        return blended

    def _check_blends(self, result: int) -> None:
        """After the last DENOISE the known part is clean; every blended latent must be used."""
        last = max((i for i, node in enumerate(self.nodes) if node.kind is Denoise), default=-1)
        used = {v for node in self.nodes if node.kind is not Step for v in node.operands}
        for value, at in self._blends.items():
            if at > last:
                self.nodes[at] = self.nodes[at]._replace(facts=(1.0, 0.0))
            if value not in used and value != result:
                raise InvalidRequestError(
                    "trace: the sampler does not go on from the latent that it gave to m.step, "
                    "which inpainting needs.",
                    param="sampler",
                )

    def _level(self, where: str, sigma: float) -> tuple[float, float, float, float]:
        known = self._levels.get(sigma)
        if known is None:
            value = check_number(f"m.{where}: sigma", sigma)
            if value <= 0.0:
                refuse(f"m.{where}: sigma", value, "are finite numbers > 0")
            known = (*self._coefficients(value), float(self._noise_level(value)))
            self._levels[sigma] = known
        return known


def langevin_factor(snr: float, alpha: float, norm: str) -> float:
    """The factor of LANGEVIN_STEP, 2*alpha*snr^2.

    Raises:
        InvalidRequestError: A value is not positive and finite, or `norm` is unknown.
    """
    for name, value in (("snr", snr), ("alpha", alpha)):
        if check_number(f"m.langevin_step: {name}", value) <= 0.0:
            refuse(f"m.langevin_step: {name}", value, "are finite numbers > 0")
    check_choice("m.langevin_step: norm", norm, ("sample", "batch"))
    return check_number("m.langevin_step: snr", 2.0 * float(alpha) * float(snr) * float(snr))


def trace(
    sampler: str | Sampler,
    schedule: Schedule | Sequence[float],
    prediction: str = "epsilon",
    *,
    inpaint: bool = False,
    **options: Any,
) -> Program:
    """Makes the program of a sampler on a schedule.

    Args:
        sampler: A registered name or a function `sampler(m, x, sigmas, **options) -> x`.
        schedule: A Schedule, or n+1 sigmas (the network is then told sigma itself and the initial
            scale is the largest).
        prediction: What the network predicts: epsilon, v_prediction, sample, score, flow
            or edm.
        inpaint: Makes a program that blends known latents in after every step; `sample` is then
            given known, mask and known_noise.
        **options: Of the sampler. Where it takes `targets` or `timesteps` and the schedule has
            them they are passed too. With every sampler: `threshold=(ratio, high)`, dynamic
            thresholding of every estimate of the clean latent (Saharia et al. 2022).

    Raises:
        InvalidRequestError: Unknown name or option, or the sampler does what a program cannot hold.
    """
    return make_program(sampler, schedule, prediction, options, inpaint=inpaint)


def make_program(
    sampler: str | Sampler,
    schedule: Schedule | Sequence[float],
    prediction: str,
    options: dict[str, Any],
    *,
    inpaint: bool = False,
    whole_levels: bool = False,
) -> Program:
    """`trace` for options that may have any name; `whole_levels` as of `Tracer`."""
    name, function = registry.resolve(sampler)
    if not isinstance(schedule, Schedule):
        schedule = explicit(schedule)
    check_falling(schedule.sigmas)
    check_choice("prediction", prediction, PREDICTIONS)
    tracer, result = _record(
        name, function, schedule, schedule.noise_level, prediction, options, inpaint, whole_levels
    )
    intervals = tuple(map(tracer.intervals.get, draws_used(tracer.nodes, tracer.kinds)))
    lowered = lower(tracer.nodes, tracer.kinds, tracer.halves, 0, result)
    return Program(
        name=name,
        instructions=lowered.instructions,
        x_registers=lowered.x_registers,
        e_registers=lowered.e_registers,
        result=lowered.result,
        initial_scale=schedule.initial_scale,
        prediction=prediction,
        intervals=intervals,
    )


def seen_sigmas(
    sampler: str | Sampler, schedule: Schedule, options: dict[str, Any]
) -> tuple[float, ...]:
    """The sigma of every network run of a sampler, in order: where to guide how much, say.

    sampler, schedule, options: As of `trace`.
    """
    name, function = registry.resolve(sampler)
    tracer, _ = _record(name, function, schedule, float, "sample", options, False)
    return tuple(
        level for node in tracer.nodes if node.kind is Denoise for _, level in [node.facts]
    )


def _record(
    name: str,
    function: Sampler,
    schedule: Schedule,
    noise_level: Callable[[float], float],
    prediction: str,
    options: dict[str, Any],
    inpaint: bool,
    whole_levels: bool = False,
) -> tuple[Tracer, int]:
    """Runs a sampler on symbols: what it did, and the value of its result."""
    options, threshold = _split_threshold(function, options)
    options = bind_options(name, function, schedule, options)
    tracer = Tracer(
        noise_level,
        prediction,
        schedule.sigmas if inpaint else None,
        threshold,
        whole_levels,
    )
    try:
        x = function(tracer, tracer.initial, schedule.sigmas, **options)
    except InvalidRequestError as error:
        if not is_own(function):
            add_line(error)
        raise
    return tracer, tracer.finish(x)


def _split_threshold(
    function: Sampler, options: dict[str, Any]
) -> tuple[dict[str, Any], tuple[float, float] | None]:
    """The options of the function, and (ratio, high) where the trace does the thresholding."""
    given = options.get("threshold")
    if takes(function, "threshold"):
        if given is not None and is_own(function):
            _threshold(given)
        return options, None
    rest = {name: value for name, value in options.items() if name != "threshold"}
    return rest, None if given is None else _threshold(given)


def _threshold(given: Sequence[float]) -> tuple[float, float]:
    """Checked (ratio, high) of dynamic thresholding."""
    numbers = check_numbers("threshold", given)
    if len(numbers) != 2 or not 0.0 <= numbers[0] <= 1.0 or numbers[1] <= 0.0:
        refuse("threshold", given, "are a quantile 0..1 and a largest bound > 0")
    return numbers[0], numbers[1]
