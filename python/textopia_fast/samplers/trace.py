"""Tracing: runs a sampler once on symbols and makes a program of what it did.

A sampler is a function `sampler(m, x, sigmas, **options) -> x` in the frame x = x0 + sigma*eps.
What it may use:

    m.denoise(x, sigma)          the network's estimate of the clean latent x0
    m.score(x, sigma)            (x0 - x) / sigma^2
    m.noise()                    a fresh unit normal latent
    m.clamp(x0, low, high)       element-wise
    m.langevin_step(x, score, snr=..., alpha=1.0, norm="sample")
    m.step(x, denoised=x0)       once per step: progress, cancellation, preview

and + - * / with numbers. Sums stay symbolic until the network (or a clamp, a step) needs them; then
one fused COMBINE makes them. A latent times a number is not made: the number is folded into the
network's input scale. Draws that no weight refers to are dropped.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from ..checks import check_choice, check_integer, check_number, check_numbers, refuse
from ..errors import InvalidRequestError
from . import registry
from .lowering import Node, lower, operand_count
from .prediction import PREDICTIONS, coefficients
from .program import MAX_OPERANDS, Blend, Clamp, Combine, Denoise, LangevinStep, Program, Step
from .schedules import Schedule, explicit
from .symbols import Linear

__all__ = ["Sampler", "Tracer", "langevin_factor", "make_program", "trace"]

Sampler = Callable[..., Any]
"""A function `sampler(m, x, sigmas, **options) -> x`."""

_OWN = tuple(info.function for info in registry.SAMPLERS.values())


class Tracer:
    """The `m` of a sampler while it is traced."""

    def __init__(
        self,
        noise_level: Callable[[float], float],
        prediction: str,
        inpaint_sigmas: Sequence[float] | None = None,
        whole_levels: bool = False,
    ) -> None:
        """`inpaint_sigmas`: the schedule's noise levels, for inpainting; None without.

        `whole_levels`: calls between two of them see the known part at the lower one (diffusers'
        KDPM2DiscreteScheduler), and not at their own.
        """
        self._noise_level = noise_level
        self._coefficients = coefficients(prediction)
        self._levels: dict[float, tuple[float, float, float, float]] = {}
        self.nodes: list[Node] = []
        self.kinds: list[str] = ["x"]
        self.step_count = 0
        self.initial = Linear(self, {0: 1.0})
        self._inpaint_sigmas = inpaint_sigmas
        self._whole_levels = whole_levels
        self._blends: dict[int, int] = {}  # blended value -> its node
        self._open_blends: set[int] = set()  # those whose frame no DENOISE has shown yet
        self._calls_in_step = 0

    def denoise(self, x: Linear, sigma: float) -> Linear:
        """The estimate of the clean latent at x, seen at noise level sigma > 0."""
        self._expect("denoise", x)
        scale_in, c_skip, c_out, level = self._level("denoise", sigma)
        source, scale = self._scaled(x)
        if self._inpaint_sigmas is not None:
            source = self._blended_input(x, source, scale, float(sigma))
        scale_in *= scale
        if abs(scale_in - 1.0) < 1e-15:
            scale_in = 1.0
        output = self._value("e")
        self.nodes.append(Node(Denoise, output, {source: 1.0}, (scale_in, level)))
        skip = c_skip * scale
        return Linear(self, {source: skip, output: c_out} if skip else {output: c_out})

    def score(self, x: Linear, sigma: float) -> Linear:
        """The gradient of log p(x; sigma): (x0 - x) / sigma^2."""
        denoised = self.denoise(x, sigma)
        return (denoised - x) / (float(sigma) * float(sigma))

    def noise(self) -> Linear:
        """A fresh unit normal latent."""
        return Linear(self, {self._value("n"): 1.0})

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
        self.nodes.append(Node(Clamp, clamped, {source: 1.0}, (low, high)))
        return Linear(self, {clamped: 1.0})

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
        self.nodes.append(Node(LangevinStep, moved, operands, (gradient, factor, norm), draw))
        return Linear(self, {moved: 1.0})

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
        self.nodes.append(Node(Step, -1, operands, (self.step_count, current)))
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

    def value_name(self, value: int) -> str:
        """Name of a value for messages: x0 is the initial latent; counted per kind."""
        kind = self.kinds[value]
        return f"{kind}{self.kinds[:value].count(kind)}"

    def _blend(self, source: int, known: float, noise: float) -> int:
        blended = self._value("x")
        self._blends[blended] = len(self.nodes)
        self.nodes.append(Node(Blend, blended, {source: 1.0}, (known, noise)))
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

    def _value(self, kind: str) -> int:
        self.kinds.append(kind)
        return len(self.kinds) - 1

    def _stored(self, x: Linear) -> int:
        """The value that holds x, made by one COMBINE unless there is one."""
        if self._is_stored(x):
            (value,) = x.weights
            return value
        made = self._value("x")
        self.nodes.append(Node(Combine, made, x.weights or {0: 0.0}, ()))
        # From now on the expression is that value; what was built from it before keeps its old
        # form.
        x.weights, x.base, x.scale = {made: 1.0}, x, 1.0
        return made

    def _scaled(self, x: Linear) -> tuple[int, float]:
        """x as one latent times a number, made by one COMBINE unless there is one."""
        base = x.base
        if not self._is_stored(base) and len(x.weights) == 1:
            ((value, weight),) = x.weights.items()
            if self.kinds[value] == "x":
                return value, weight
        scale = x.scale
        source = self._stored(base)
        x.weights = {source: scale}
        return source, scale

    def _is_stored(self, x: Linear) -> bool:
        if len(x.weights) != 1:
            return False
        ((value, weight),) = x.weights.items()
        return weight == 1.0 and self.kinds[value] == "x"

    def _level(self, where: str, sigma: float) -> tuple[float, float, float, float]:
        known = self._levels.get(sigma)
        if known is None:
            value = check_number(f"m.{where}: sigma", sigma)
            if value <= 0.0:
                refuse(f"m.{where}: sigma", value, "are finite numbers > 0")
            known = (*self._coefficients(value), float(self._noise_level(value)))
            self._levels[sigma] = known
        return known

    def _is_own(self, x: Any) -> bool:
        return isinstance(x, Linear) and x.tracer is self

    def _expect(self, where: str, x: Any) -> None:
        if not self._is_own(x):
            raise InvalidRequestError(
                f"m.{where}: {type(x).__name__} was passed, allowed is a latent of this trace.",
                param="sampler",
            )


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
            them they are passed too.

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
    options = _bind(name, function, schedule, options)
    tracer = Tracer(
        schedule.noise_level,
        check_choice("prediction", prediction, PREDICTIONS),
        schedule.sigmas if inpaint else None,
        whole_levels,
    )
    x = function(tracer, tracer.initial, schedule.sigmas, **options)
    result = tracer.finish(x)
    lowered = lower(tracer.nodes, tracer.kinds, 0, result)
    return Program(
        name=name,
        instructions=lowered.instructions,
        x_registers=lowered.x_registers,
        e_registers=lowered.e_registers,
        result=lowered.result,
        initial_scale=schedule.initial_scale,
        prediction=prediction,
    )


def _bind(
    name: str, function: Sampler, schedule: Schedule, options: dict[str, Any]
) -> dict[str, Any]:
    """The options that `function` is called with.

    Raises:
        InvalidRequestError: It does not take (m, x, sigmas), an option is not known or missing, or
            an option of a sampler of this package is of the wrong kind.
    """
    try:
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())
        signature.bind_partial(None, None, None)
    except (TypeError, ValueError):
        refuse("sampler", function, "are functions (m, x, sigmas, **options)")
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    known = {
        p.name: p for p in parameters[3:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    names = ", ".join(known) or "none"
    for option, value in options.items():
        if option in known:
            _check_option(function, known[option], value)
        elif not takes_any:
            raise InvalidRequestError(
                f"{name}: option {option!r} is not known, allowed are {names}.", param=option
            )
    for facts in ("targets", "timesteps"):
        values = getattr(schedule, facts)
        if values is not None and facts in known and facts not in options:
            options = {**options, facts: values}
    missing = [p.name for p in known.values() if p.default is p.empty and p.name not in options]
    if missing:
        raise InvalidRequestError(
            f"{name}: option {missing[0]!r} is not given and has no default.", param=missing[0]
        )
    return options


def _check_option(function: Sampler, parameter: inspect.Parameter, value: Any) -> None:
    """Checks an option against its annotation, for the samplers of this package."""
    if not any(function is own for own in _OWN):
        return
    name, kind = parameter.name, parameter.annotation
    if value is None and "None" in kind:
        return
    if kind == "int":
        check_integer(name, value, 0, 1_000_000)
    elif kind == "bool":
        if not isinstance(value, bool):
            refuse(name, value, "are True, False")
    elif kind.startswith("float"):
        # s_tmax is infinite unless given, and may be given so.
        if not (isinstance(value, float) and value == parameter.default):
            check_number(name, value)
    elif kind.startswith("Sequence[float]"):
        check_numbers(name, value)
