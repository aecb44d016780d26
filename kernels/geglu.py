"""GEGLU after the linear layer: out = value * gelu(gate), gelu with the error function; value is
the first half of each row, gate the second.

Bound by memory: 2 elements read, 1 written, 6 bytes an output in 16-bit types.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import triton
import triton.language as tl

from .variant import TOLERANCES, Check, Variant, compare, from_storage, to_storage


@triton.jit
def geglu(
    x,  # *T [rows, 2 * channels]
    out,  # *T [rows, channels]
    channels,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_channel = channel < channels
    at = row * 2 * channels + channel
    value = tl.load(x + at, mask=is_channel, other=0.0).to(tl.float32)
    gate = tl.load(x + at + channels, mask=is_channel, other=0.0).to(tl.float32)
    gelu = 0.5 * gate * (1.0 + tl.math.erf(gate * 0.7071067811865476))
    result = (value * gelu).to(out.dtype.element_ty)
    tl.store(out + row * channels + channel, result, mask=is_channel)


PARAMETERS = {"x": "*T", "out": "*T", "channels": "i32"}
BLOCK = 1024


def variants() -> Iterator[Variant]:
    """ "even": the number of channels is a multiple of 16."""
    for dtype in ("fp16", "bf16", "fp32"):
        for shape, aligned in (("even", ("channels",)), ("any", ())):
            yield Variant("geglu", dtype, shape, PARAMETERS, {"BLOCK": BLOCK}, aligned=aligned)


def grid(rows: int, channels: int) -> tuple[int, int, int]:
    return -(-channels // BLOCK), rows, 1


def reference(x: np.ndarray) -> np.ndarray:
    """float64 [rows, channels]."""
    value, gate = np.split(x, 2, axis=-1)
    erf = np.vectorize(math.erf)(gate / math.sqrt(2))
    return value * 0.5 * gate * (1 + erf)


def check(launch, variant: Variant, rng: np.random.Generator) -> Iterator[Check]:
    for channels in (16, 1280) if variant.aligned else (1, 1025):
        x = to_storage(3 * rng.standard_normal((3, 2 * channels)), variant.dtype)
        out = np.zeros((3, channels), x.dtype)
        launch(variant, grid(3, channels), {"x": x, "out": out, "channels": channels})
        wanted = reference(from_storage(x, variant.dtype))
        found = from_storage(out, variant.dtype)
        yield compare(f"3 rows of {channels}", found, wanted, TOLERANCES[variant.dtype])
