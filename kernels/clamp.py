"""CLAMP of csrc/engine/program.h: target = x limited to [low, high]; NaN stays NaN.

Bound by launch latency at latent sizes; 8 bytes an element.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import triton
import triton.language as tl

from .variant import Check, Variant, compare

BLOCK = 1024


@triton.jit
def clamp(x, target, low, high, count, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, mask=at < count, other=0.0)
    value = tl.where(value < low, low, value)
    value = tl.where(value > high, high, value)
    tl.store(target + at, value, mask=at < count)


PARAMETERS = {"x": "*fp32", "target": "*fp32", "low": "fp32", "high": "fp32", "count": "i32"}


def variants() -> Iterator[Variant]:
    yield Variant("clamp", "fp32", "any", PARAMETERS, {"BLOCK": BLOCK})


def check(launch, variant: Variant, rng: np.random.Generator) -> Iterator[Check]:
    for count in (1, 1023, 2050):
        x = 3 * rng.standard_normal(count, np.float32)
        target = np.zeros_like(x)
        grid = (-(-count // BLOCK), 1, 1)
        arguments = {"x": x, "target": target, "low": -1.0, "high": 1.5, "count": count}
        launch(variant, grid, arguments)
        yield compare(f"{count} elements", target, np.clip(x, -1.0, 1.5).astype(np.float64), 0.0)
