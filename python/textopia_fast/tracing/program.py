"""Programs: what a traced sampler is. Plain immutable data that the native loop executes.

A program works on two files of registers. "x" registers hold latents; register x0 holds the initial
latent. "e" registers hold network outputs. Under classifier-free guidance an engine keeps both
halves of an "e" register and turns a weight w on it into w*(1-g) on the negative and w*g on the
positive half, where g is the guidance at the DENOISE that wrote it; so programs know nothing of
guidance. "u" names the negative half of the "e" register of that number alone (CFG++).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

__all__ = [
    "MAX_OPERANDS",
    "Blend",
    "Clamp",
    "Combine",
    "Denoise",
    "Instruction",
    "Interval",
    "LangevinStep",
    "Program",
    "Register",
    "Rescale",
    "Step",
    "Term",
    "Threshold",
]

# What one fused update may read: an "e" term counts twice (both guidance halves), the noise once.
MAX_OPERANDS = 16


class Register(NamedTuple):
    """A latent ("x"), a network output ("e"), or the latter's negative half ("u")."""

    kind: str
    index: int  # type: ignore[assignment]  # hides tuple.index, which no register needs

    def __str__(self) -> str:
        return f"{self.kind}{self.index}"


Term = tuple[Register, float]
Interval = tuple[float, float]


class Denoise(NamedTuple):
    """dst = network(src * scale_in, noise_level)."""

    dst: Register
    src: Register
    scale_in: float
    noise_level: float

    def __str__(self) -> str:
        scale = "" if self.scale_in == 1.0 else f"{self.scale_in:.9g}*"
        return f"DENOISE        {self.dst!s:<3} <- {scale}{self.src}  at {self.noise_level:.9g}"


class Combine(NamedTuple):
    """dst = sum of weight * register, plus `noise` times one fresh unit normal (0.0: no draw).

    dst may be one of the terms (in place).
    """

    dst: Register
    terms: tuple[Term, ...]
    noise: float

    def __str__(self) -> str:
        noise = f"  {self.noise:+.9g}*noise" if self.noise else ""
        return f"COMBINE        {self.dst!s:<3} <- {_terms(self.terms)}{noise}"


class Clamp(NamedTuple):
    """dst = min(max(src, low), high). dst may be src."""

    dst: Register
    src: Register
    low: float
    high: float

    def __str__(self) -> str:
        return f"CLAMP          {self.dst!s:<3} <- {self.src}  to [{self.low:.9g}, {self.high:.9g}]"


class Threshold(NamedTuple):
    """dst = min(max(src, -s), s)/s: dynamic thresholding. dst may be src.

    s is the `ratio` quantile of the magnitudes of each image, at least 1, and then at most `high`.
    """

    dst: Register
    src: Register
    ratio: float
    high: float

    def __str__(self) -> str:
        return (
            f"CLAMP          {self.dst!s:<3} <- {self.src}  to its {self.ratio:.9g} quantile"
            f" in 1..{self.high:.9g}, over it"
        )


class Rescale(NamedTuple):
    """Guidance rescale of a network output, for all that reads it until it is written again.

    Per image the guided output is multiplied by phi*std(positive half)/std(guided) + 1 - phi.
    """

    output: Register
    phi: float

    def __str__(self) -> str:
        return f"RESCALE        {self.output!s:<3} by {self.phi:.9g}"


class LangevinStep(NamedTuple):
    """dst = src + step*score + sqrt(2*step)*z with fresh z and step = factor*(|z|/|score|)^2.

    The norms are taken over each image (norm "sample") or are the means of those over the batch
    ("batch"). dst may be src, and is never score.
    """

    dst: Register
    src: Register
    score: Register
    factor: float
    norm: str

    def __str__(self) -> str:
        return (
            f"LANGEVIN_STEP  {self.dst!s:<3} <- {self.src} along {self.score}"
            f"  factor {self.factor:.9g}, norm per {self.norm}"
        )


class Blend(NamedTuple):
    """dst = mask*src + (1 - mask)*(known*K + noise*N): inpainting. dst may be src.

    The run gives the mask (1: to be painted), the known latents K and one unit normal N.
    """

    dst: Register
    src: Register
    known: float
    noise: float

    def __str__(self) -> str:
        return (
            f"BLEND          {self.dst!s:<3} <- {self.src} where masked,"
            f" else {self.known:.9g}*known {self.noise:+.9g}*known_noise"
        )


class Step(NamedTuple):
    """End of sampler step `index`: progress, cancellation, preview.

    `x` is the latent after the step. `denoised` is the network's estimate of the clean latent in
    this step as a weighted sum of registers that still hold what they should; it is evaluated only
    when somebody looks.
    """

    index: int  # type: ignore[assignment]  # hides tuple.index, as above
    x: Register
    denoised: tuple[Term, ...]

    def __str__(self) -> str:
        denoised = f"  denoised {_terms(self.denoised)}" if self.denoised else ""
        return f"STEP {self.index:<9} {self.x}{denoised}"


Instruction = Denoise | Combine | Clamp | Threshold | Rescale | LangevinStep | Blend | Step


@dataclass(frozen=True)
class Program:
    """A traced sampler.

    Attributes:
        name: Of the sampler.
        instructions: In order of execution.
        x_registers: How many latents are held at once.
        e_registers: How many network outputs are held at once.
        result: The register that holds the sample at the end.
        initial_scale: Factor on unit normal noise that makes the initial latent.
        prediction: What the network predicts; the weights already contain the conversion.
        intervals: Per draw, the noise levels that it stands between, for noise that is one
            Brownian path over sigma; None where the sampler did not say.
    """

    name: str
    instructions: tuple[Instruction, ...]
    x_registers: int
    e_registers: int
    result: Register
    initial_scale: float
    prediction: str
    intervals: tuple[Interval | None, ...] = ()

    def __post_init__(self) -> None:
        if not self.intervals:
            object.__setattr__(self, "intervals", (None,) * self.draw_count)

    @property
    def step_count(self) -> int:
        """How many STEP instructions there are."""
        return self._count(Step)

    @property
    def denoise_count(self) -> int:
        """How often the network runs."""
        return self._count(Denoise)

    @property
    def combine_count(self) -> int:
        """How many fused updates there are."""
        return self._count(Combine)

    @property
    def draw_count(self) -> int:
        """How many unit normal latents are drawn, without the initial one."""
        noisy = sum(1 for i in self.instructions if type(i) is Combine and i.noise != 0.0)
        return noisy + self._count(LangevinStep)

    @property
    def blends(self) -> bool:
        """Whether it was traced for inpainting."""
        return self._count(Blend) > 0

    @property
    def reads_uncond(self) -> bool:
        """Whether it reads the unconditional half of the network's output alone (CFG++)."""
        return any(
            register.kind == "u"
            for i in self.instructions
            if isinstance(i, (Combine, Step))
            for register, _ in (i.terms if isinstance(i, Combine) else i.denoised)
        )

    def rescaled(self, phi: float) -> Program:
        """The program with guidance rescale (Lin et al. 2024, section 3.4) after every DENOISE.

        phi: The share of the rescaled output, 0..1; 0 gives the program itself.
        """
        if phi == 0.0:
            return self
        instructions: list[Instruction] = []
        for i in self.instructions:
            instructions.append(i)
            if isinstance(i, Denoise):
                instructions.append(Rescale(i.dst, phi))
        return replace(self, instructions=tuple(instructions))

    @property
    def noise_levels(self) -> tuple[float, ...]:
        """What the network is told at each DENOISE, in order (diffusers' `timesteps`)."""
        return tuple(i.noise_level for i in self.instructions if type(i) is Denoise)

    def __hash__(self) -> int:
        # Kept: programs are keys of caches, and a long one takes a millisecond to hash.
        known = self.__dict__.get("_hash")
        if known is None:
            known = hash(self._fields())
            object.__setattr__(self, "_hash", known)
        return known

    def __reduce__(self) -> tuple[Any, ...]:
        return (Program, self._fields())  # without the hash, which is this process's own

    def _fields(self) -> tuple[Any, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))

    def _count(self, kind: type) -> int:
        return sum(1 for i in self.instructions if type(i) is kind)

    def __str__(self) -> str:
        head = (
            f"{self.name}: {self.step_count} steps, {self.denoise_count} DENOISE,"
            f" {self.combine_count} COMBINE, {self.draw_count} draws;"
            f" registers {self.x_registers} x + {self.e_registers} e;"
            f" x0 = {self.initial_scale:.9g}*noise; predicts {self.prediction};"
            f" result {self.result}"
        )
        return "\n".join([head, *(str(instruction) for instruction in self.instructions)])

    def to_native(self) -> list[tuple[Any, ...]]:
        """The instructions as flat tuples for the binding; registers become indices."""
        return [_native(instruction) for instruction in self.instructions]


def _terms(terms: tuple[Term, ...]) -> str:
    return "  ".join(f"{weight:+.9g}*{register}" for register, weight in terms)


def _native(i: Instruction) -> tuple[Any, ...]:
    if isinstance(i, Denoise):
        return ("denoise", i.dst.index, i.src.index, i.scale_in, i.noise_level)
    if isinstance(i, Combine):
        return ("combine", i.dst.index, [(r.kind, r.index, w) for r, w in i.terms], i.noise)
    if isinstance(i, Clamp):
        return ("clamp", i.dst.index, i.src.index, i.low, i.high)
    if isinstance(i, Threshold):
        return ("threshold", i.dst.index, i.src.index, i.ratio, i.high)
    if isinstance(i, Rescale):
        return ("rescale", i.output.index, i.phi)
    if isinstance(i, LangevinStep):
        return ("langevin_step", i.dst.index, i.src.index, i.score.index, i.factor, i.norm)
    if isinstance(i, Blend):
        return ("blend", i.dst.index, i.src.index, i.known, i.noise)
    return ("step", i.index, i.x.index, [(r.kind, r.index, w) for r, w in i.denoised])
