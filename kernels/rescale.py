"""RESCALE of csrc/engine/program.h (guidance rescale, Lin et al. 2024, section 3.4): per image the
factor phi * std(positive) / std(guided) + 1 - phi, which COMBINE multiplies into its weights.

Bound by latency: one program per image reads both halves once. Sums are float64, as on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import triton
import triton.language as tl

from .variant import Check, Variant, compare, from_storage, to_storage

BLOCK = 1024


@triton.jit
def spread(total, squares, count):
    """Sum of squared differences from the mean; 0 where it is no more than rounding."""
    found = squares - total / count * total
    return tl.where(found > 1e-13 * squares, found, 0.0)


@triton.jit
def rescale(
    output,  # *T [rows, size], two rows per image
    factors,  # *fp32 [output registers, images]
    register,  # whose factors are written
    guidance,
    phi,
    size,
    image_count,
    images_per_run,
    BLOCK: tl.constexpr,
):
    image = tl.program_id(0)
    run_start = image // images_per_run * images_per_run
    run_images = tl.minimum(images_per_run, image_count - run_start)
    negative_at = (image + run_start).to(tl.int64) * size
    positive_at = negative_at + run_images.to(tl.int64) * size
    strength = tl.cast(guidance, tl.float64)
    sum_positive = tl.zeros((BLOCK,), tl.float64)
    sum_guided = tl.zeros((BLOCK,), tl.float64)
    squares_positive = tl.zeros((BLOCK,), tl.float64)
    squares_guided = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, size, BLOCK):
        at = start + tl.arange(0, BLOCK)
        is_here = at < size
        positive = tl.load(output + positive_at + at, mask=is_here, other=0.0).to(tl.float64)
        negative = tl.load(output + negative_at + at, mask=is_here, other=0.0).to(tl.float64)
        guided = negative + strength * (positive - negative)
        sum_positive += positive
        sum_guided += guided
        squares_positive += positive * positive
        squares_guided += guided * guided
    count = tl.cast(size, tl.float64)
    plain = spread(tl.sum(sum_positive, 0), tl.sum(squares_positive, 0), count)
    guided_spread = spread(tl.sum(sum_guided, 0), tl.sum(squares_guided, 0), count)
    is_flat = guided_spread == 0.0
    ratio = tl.sqrt(plain / tl.where(is_flat, 1.0, guided_spread))
    share = tl.cast(phi, tl.float64)
    factor = share * tl.where(is_flat, 1.0, ratio) + (1.0 - share)
    tl.store(factors + register * image_count + image, factor.to(tl.float32))


PARAMETERS = {
    "output": "*T",
    "factors": "*fp32",
    "register": "i32",
    "guidance": "fp64",
    "phi": "fp64",
    **dict.fromkeys(("size", "image_count", "images_per_run"), "i32"),
}


def variants() -> Iterator[Variant]:
    for dtype in ("fp32", "fp16", "bf16"):
        yield Variant("rescale", dtype, "any", PARAMETERS, {"BLOCK": BLOCK}, fuses_fma=False)


def check(launch, variant: Variant, rng: np.random.Generator) -> Iterator[Check]:
    """The last case is flat: its factor is 1."""
    for images, size, per_run, spread in (
        (1, 2, 1, 1),
        (3, 31, 2, 1),
        (3, 2050, 3, 1),
        (1, 5, 1, 0),
    ):
        rows = 3 + spread * rng.standard_normal((2 * images, size))
        output = to_storage(rows, variant.dtype)
        factors = np.zeros((2, images), np.float32)
        numbers = {"guidance": 7.5, "phi": 0.7, "size": size, "image_count": images}
        arguments = {
            "output": output,
            "factors": factors,
            "register": 1,
            **numbers,
            "images_per_run": per_run,
        }
        launch(variant, (images, 1, 1), arguments)
        values = from_storage(output, variant.dtype)
        wanted = np.empty(images)
        for image in range(images):
            start = image // per_run * per_run
            row = start + image
            negative, positive = values[row], values[row + min(per_run, images - start)]
            guided = negative + 7.5 * (positive - negative)
            ratio = positive.std() / guided.std() if spread else 1.0
            wanted[image] = 0.7 * ratio + 0.3
        yield compare(f"{images}x{size}, {per_run} images per run", factors[1], wanted, 1e-6)
