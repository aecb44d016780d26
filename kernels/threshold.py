"""THRESHOLD of csrc/engine/program.h (dynamic thresholding, Saharia et al. 2022, section 2.3): per
image, target = x limited to [-s, s] and divided by s; s is a quantile of the magnitudes.

Bound by latency: one program per image reads it 33 times, from L2. Magnitudes of floats are in the
order of their bits, so the quantile is found bit by bit from the top, without sorting.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import triton
import triton.language as tl

from .variant import Check, Variant, compare

BLOCK = 2048


@triton.jit
def threshold(
    x,  # *fp32 [images, size]
    target,
    below,  # rank of the quantile among the magnitudes, from 0, rounded down
    share,  # and the rest: linear between two neighbours
    high,  # s is at least 1 and then at most this
    size,
    BLOCK: tl.constexpr,
):
    at_image = tl.program_id(0).to(tl.int64) * size
    found = tl.cast(0, tl.int32)
    for bit in range(31):
        candidate = found | (tl.cast(1, tl.int32) << (30 - bit))
        smaller = tl.zeros((BLOCK,), tl.int32)
        for start in range(0, size, BLOCK):
            at = start + tl.arange(0, BLOCK)
            value = tl.load(x + at_image + at, mask=at < size, other=0.0)
            magnitude = value.to(tl.int32, bitcast=True) & 0x7FFFFFFF
            smaller += tl.where((magnitude < candidate) & (at < size), 1, 0)
        found = tl.where(tl.sum(smaller, 0) <= below, candidate, found)
    not_above = tl.zeros((BLOCK,), tl.int32)
    following = tl.full((BLOCK,), 0x7FFFFFFF, tl.int32)
    for start in range(0, size, BLOCK):
        at = start + tl.arange(0, BLOCK)
        value = tl.load(x + at_image + at, mask=at < size, other=0.0)
        magnitude = value.to(tl.int32, bitcast=True) & 0x7FFFFFFF
        is_above = (magnitude > found) & (at < size)
        not_above += tl.where((magnitude <= found) & (at < size), 1, 0)
        following = tl.minimum(following, tl.where(is_above, magnitude, 0x7FFFFFFF))
    has_twin = tl.sum(not_above, 0) > below + 1
    next_bits = tl.where(has_twin | (share == 0.0), found, tl.min(following, 0))
    low = found.to(tl.float32, bitcast=True)
    up = next_bits.to(tl.float32, bitcast=True)
    # From the nearer end, as torch.lerp.
    bound = tl.where(share < 0.5, low + share * (up - low), up - (up - low) * (1.0 - share))
    bound = tl.where(bound < 1.0, 1.0, bound)
    bound = tl.where(bound > high, high, bound)
    for start in range(0, size, BLOCK):
        at = start + tl.arange(0, BLOCK)
        value = tl.load(x + at_image + at, mask=at < size, other=0.0)
        value = tl.where(value < -bound, -bound, value)
        value = tl.where(value > bound, bound, value)
        tl.store(target + at_image + at, tl.div_rn(value, bound), mask=at < size)


PARAMETERS = {
    "x": "*fp32",
    "target": "*fp32",
    "below": "i32",
    "share": "fp32",
    "high": "fp32",
    "size": "i32",
}


def variants() -> Iterator[Variant]:
    constants = {"BLOCK": BLOCK}
    yield Variant("threshold", "fp32", "any", PARAMETERS, constants, warps=8, fuses_fma=False)


def reference(x: np.ndarray, ratio: float, high: float) -> np.ndarray:
    """float64 [images, size]."""
    bound = np.quantile(np.abs(x), ratio, axis=1, keepdims=True)
    bound = np.minimum(np.maximum(bound, 1.0), high)
    return np.clip(x, -bound, bound) / bound


def check(launch, variant: Variant, rng: np.random.Generator) -> Iterator[Check]:
    """Ties, one element, both ends of the quantile."""
    for size, ratio, high, digits in (
        (1, 0.5, 9.0, 9),
        (7, 1.0, 9.0, 9),
        (2050, 0.9, 9.0, 9),
        (301, 0.4, 2.0, 0),
        (301, 0.0, 2.0, 1),
    ):
        x = (3 * rng.standard_normal((2, size))).round(digits).astype(np.float32)
        rank = np.float32(ratio) * np.float32(size - 1)
        target = np.zeros_like(x)
        numbers = {"below": int(rank), "share": float(rank - int(rank)), "high": high, "size": size}
        launch(variant, (2, 1, 1), {"x": x, "target": target, **numbers})
        wanted = reference(x.astype(np.float64), ratio, high)
        yield compare(f"{size} elements, quantile {ratio}", target, wanted, 1e-6)
