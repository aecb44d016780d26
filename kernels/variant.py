"""What is compiled: a kernel with an element type, a shape class and a launch shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LOG2_E = 1.4426950408889634

# Numbers that a check may miss by, relative to the largest value: a few roundings of the type in
# which the result is stored; float32 also pays for sums in another order.
TOLERANCES = {"fp32": 2e-5, "fp16": 2e-3, "bf16": 1.6e-2}


@dataclass(frozen=True)
class Variant:
    """One entry of the manifest, for every architecture.

    Attributes:
        kernel: Name of the file here and of the Triton function in it.
        dtype: Element type T of the activations: "fp32", "fp16" or "bf16".
        shape: Name of the shape class.
        parameters: Type by parameter name, in the order of the function; "T" stands for `dtype`, a
            tuple for a Triton tuple. Constants are not listed.
        constants: Compile-time parameters.
        warps: Warps per program.
        stages: Depth of the load pipeline.
        fuses_fma: a * b + c may be rounded once. Off where results must match the CPU to the bit.
        aligned: Integers that are promised to be multiples of 16, as all pointers are.
        small: Replaces constants, warps and stages where a program has 99 KiB of shared memory
            (sm_86, sm_89, sm_120) and not 163 KiB or more.
    """

    kernel: str
    dtype: str
    shape: str
    parameters: Mapping[str, str | tuple[str, ...]]
    constants: Mapping[str, int] = field(default_factory=dict)
    warps: int = 4
    stages: int = 2
    fuses_fma: bool = True
    aligned: tuple[str, ...] = ()
    small: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.kernel}.{self.dtype}.{self.shape}"

    def types(self) -> dict[str, str | tuple[str, ...]]:
        """Parameter types with T put in."""

        def put(kind: str) -> str:
            return kind.replace("T", self.dtype)

        return {
            name: put(kind) if isinstance(kind, str) else tuple(map(put, kind))
            for name, kind in self.parameters.items()
        }


@dataclass(frozen=True)
class Check:
    """One comparison with the reference: the largest error relative to the largest value."""

    case: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance


def compare(case: str, found: np.ndarray, wanted: np.ndarray, tolerance: float) -> Check:
    """A NaN or infinity in either counts as an infinite error."""
    difference = np.abs(found.astype(np.float64) - wanted)
    scale = np.abs(wanted).max(initial=1e-30)
    error = difference.max(initial=0.0) / scale
    return Check(case, float(error) if np.isfinite(error) else float("inf"), tolerance)


def to_storage(values: np.ndarray, dtype: str) -> np.ndarray:
    """float values as the memory of `dtype`; bfloat16 as uint16 bits, rounded to nearest even."""
    if dtype == "fp16":
        return values.astype(np.float16)
    single = np.ascontiguousarray(values, dtype=np.float32)
    if dtype == "fp32":
        return single
    bits = single.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def from_storage(memory: np.ndarray, dtype: str) -> np.ndarray:
    """The values of memory that `to_storage` makes, float64."""
    if dtype == "bf16":
        memory = (memory.astype(np.uint32) << 16).view(np.float32)
    return memory.astype(np.float64)
