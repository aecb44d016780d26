"""Programs cut at the network: what runs between two DENOISE, on arrays of NumPy or torch.

Where the network belongs to somebody else, the caller has its output and wants the next input.
Half precision is computed in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from ..errors import InternalError
from ..samplers import Program
from ..tracing.program import (
    Clamp,
    Combine,
    Denoise,
    Instruction,
    Register,
    Rescale,
    Step,
    Term,
    Threshold,
)
from ..tracing.reference import thresholded

__all__ = ["Registers", "Segment", "cut", "widened"]


class Segment(NamedTuple):
    """One network run and what follows it up to the next.

    Attributes:
        source: Register that the network's input is made from.
        output: Register for the network's output.
        factor: Input of the network = factor * source.
        body: The instructions after it.
        needs: Registers that `body` and all later segments read from earlier ones, but `source`.
    """

    source: Register
    output: Register
    factor: float
    body: tuple[Instruction, ...]
    needs: frozenset[Register]


@lru_cache(maxsize=128)
def cut(program: Program) -> tuple[tuple[Instruction, ...], tuple[Segment, ...]]:
    """(instructions before the first DENOISE, one Segment per DENOISE)."""
    runs = [(k, i) for k, i in enumerate(program.instructions) if isinstance(i, Denoise)]
    segments: list[Segment] = []
    wanted = {program.result}
    end = len(program.instructions)
    for start, denoise in reversed(runs):
        body, end = program.instructions[start + 1 : end], start
        for instruction in reversed(body):
            wanted -= {getattr(instruction, "dst", None)}
            wanted |= _read(instruction)
        wanted -= {denoise.dst, denoise.src}
        needs = frozenset(wanted)
        segments.append(Segment(denoise.src, denoise.dst, denoise.scale_in, body, needs))
        wanted.add(denoise.src)
    return program.instructions[:end] if runs else (), tuple(reversed(segments))


class Registers:
    """The latents and network outputs of one run."""

    def __init__(self) -> None:
        self._values: dict[Register, Any] = {}

    def __getitem__(self, register: Register) -> Any:
        return self._values[register]

    def __setitem__(self, register: Register, value: Any) -> None:
        self._values[register] = value

    def keep(self, needed: frozenset[Register] | set[Register]) -> None:
        """Lets go of all but these."""
        self._values = {r: v for r, v in self._values.items() if r in needed}

    def run(
        self,
        body: tuple[Instruction, ...],
        draw: Callable[[], Any],
        on_step: Callable[[Step], Any] | None = None,
    ) -> None:
        """Executes instructions without a DENOISE; `draw` gives a fresh unit normal latent."""
        for i in body:
            if isinstance(i, Combine):
                self._values[i.dst] = self._combined(i.terms, i.noise, draw)
            elif isinstance(i, Clamp):
                self._values[i.dst] = self._values[i.src].clip(i.low, i.high)
            elif isinstance(i, Threshold):
                self._values[i.dst] = thresholded(self._values[i.src], i.ratio, i.high)
            elif isinstance(i, Step):
                if on_step is not None:
                    on_step(i)
            else:
                raise InternalError(f"interop: {type(i).__name__} between two network runs.")

    def sum(self, terms: tuple[Term, ...]) -> Any:
        """The weighted sum of registers, or None of nothing."""
        total = None
        for register, weight in terms:
            total = _plus(total, self._values[register], weight)
        return total

    def _combined(self, terms: tuple[Term, ...], noise: float, draw: Callable[[], Any]) -> Any:
        total = self.sum(terms)
        return _plus(total, draw(), noise) if noise else total


def widened(x: Any) -> Any:
    """float16 and bfloat16 as float32, anything else as it is."""
    return x if x.dtype.itemsize >= 4 else (x.float() if hasattr(x, "float") else x.astype("f4"))


def _plus(total: Any, x: Any, weight: float) -> Any:
    """total + weight*x in the memory of `total`, which is ours."""
    if total is None:
        return x * weight
    if hasattr(total, "add_"):
        return total.add_(x, alpha=weight)
    return total + x * weight


def _read(i: Instruction) -> set[Register]:
    if isinstance(i, Combine):
        return {register for register, _ in i.terms}
    if isinstance(i, Step):
        return {i.x, *(register for register, _ in i.denoised)}
    if isinstance(i, Rescale):
        return {i.output}
    return {i.src}
