"""LANGEVIN_STEP of csrc/engine/program.h (Song et al. 2021, algorithm 5): the step size from the
norms of a fresh draw z and of the score, then target = x + step * score + sqrt(2 step) * z.

Bound by latency: one program per image reads the score twice, and with norms averaged over the
batch each program computes those of all images, which at latent sizes costs less than a second
launch. Norms are summed in float64, as on the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import triton
import triton.language as tl

from .philox import normals
from .variant import Check, Variant, compare

GROUPS = 64


@triton.jit
def langevin_step(
    x,  # *fp32 [images, size]; so score, noise, target
    score,
    noise,  # the draw, where NOISE is off
    target,
    seeds,  # *u64 [images]
    draw,
    factor,
    is_batch_norm,  # norms averaged over the batch
    bad_step,  # *i32: least step with NaN or infinity
    step,
    size,
    image_count,
    NOISE: tl.constexpr,  # z is computed here
    GROUPS: tl.constexpr,
):
    own = tl.program_id(0)
    first = tl.where(is_batch_norm != 0, 0, own)
    last = tl.where(is_batch_norm != 0, image_count, own + 1)
    noise_norm = tl.cast(0.0, tl.float64)
    score_norm = tl.cast(0.0, tl.float64)
    place = tl.arange(0, 8)
    for image in range(first, last):
        noise_square = tl.zeros((GROUPS, 8), tl.float64)
        score_square = tl.zeros((GROUPS, 8), tl.float64)
        image_at = tl.cast(image, tl.int64) * size
        for start in range(0, (size + 31) // 32, GROUPS):
            group = start + tl.arange(0, GROUPS)
            if NOISE:
                counter = group[:, None] * 8 + place[None, :]
                z = normals(tl.load(seeds + image), draw.to(tl.uint64), counter)
            for quarter in tl.static_range(4):
                element = group[:, None] * 32 + (quarter * 8 + place[None, :])
                is_here = element < size
                if NOISE:
                    drawn = tl.where(is_here, z[quarter], 0.0)
                else:
                    drawn = tl.load(noise + image_at + element, mask=is_here, other=0.0)
                here = tl.load(score + image_at + element, mask=is_here, other=0.0)
                noise_square += drawn.to(tl.float64) * drawn.to(tl.float64)
                score_square += here.to(tl.float64) * here.to(tl.float64)
        noise_norm += tl.sqrt(tl.sum(tl.sum(noise_square, 1), 0))
        score_norm += tl.sqrt(tl.sum(tl.sum(score_square, 1), 0))
    # The average over the batch cancels in the ratio.
    ratio = noise_norm / score_norm
    size_of_step = tl.cast(factor, tl.float64) * ratio * ratio
    score_weight = size_of_step.to(tl.float32)
    noise_weight = tl.sqrt(2.0 * size_of_step).to(tl.float32)

    bad = 0
    image_at = own.to(tl.int64) * size
    for start in range(0, (size + 31) // 32, GROUPS):
        group = start + tl.arange(0, GROUPS)
        if NOISE:
            counter = group[:, None] * 8 + place[None, :]
            z = normals(tl.load(seeds + own), draw.to(tl.uint64), counter)
        for quarter in tl.static_range(4):
            element = group[:, None] * 32 + (quarter * 8 + place[None, :])
            is_here = element < size
            if NOISE:
                drawn = z[quarter]
            else:
                drawn = tl.load(noise + image_at + element, mask=is_here, other=0.0)
            total = tl.load(x + image_at + element, mask=is_here, other=0.0)
            total += score_weight * tl.load(score + image_at + element, mask=is_here, other=0.0)
            total += noise_weight * drawn
            bad = tl.maximum(bad, tl.max(tl.where(tl.abs(total) < float("inf"), 0, 1)))
            tl.store(target + image_at + element, total, mask=is_here)
    if bad != 0:
        tl.atomic_min(bad_step, step)


PARAMETERS = {
    **dict.fromkeys(("x", "score", "noise", "target"), "*fp32"),
    "seeds": "*u64",
    "draw": "u64",
    "factor": "fp64",
    "is_batch_norm": "i32",
    "bad_step": "*i32",
    **dict.fromkeys(("step", "size", "image_count"), "i32"),
}


def variants() -> Iterator[Variant]:
    for noise in (0, 1):
        yield Variant(
            "langevin_step",
            "fp32",
            "noise" if noise else "given",
            PARAMETERS,
            {"NOISE": noise, "GROUPS": GROUPS},
            warps=8,
            fuses_fma=False,
        )


def reference(x, score, z, factor: float, *, is_batch_norm: bool) -> np.ndarray:
    """float64 [images, size]."""
    noise_norm, score_norm = (np.linalg.norm(a, axis=1, keepdims=True) for a in (z, score))
    if is_batch_norm:
        noise_norm, score_norm = noise_norm.mean(), score_norm.mean()
    step = factor * (noise_norm / score_norm) ** 2
    return x + step * score + np.sqrt(2 * step) * z


def check(launch, variant: Variant, rng: np.random.Generator, draw_noise) -> Iterator[Check]:
    """`draw_noise(seeds, draw, size)` is csrc/rng's philox stream."""
    for images, size in ((1, 1), (2, 31), (3, 4096)):
        for is_batch_norm in (0, 1):
            x, score, noise = rng.standard_normal((3, images, size), np.float32)
            seeds = rng.integers(0, 2**63, images, dtype=np.uint64)
            draw, factor = int(rng.integers(0, 2**40)), 2 * 0.16**2
            z = noise
            if variant.constants["NOISE"]:
                z = draw_noise(seeds, draw, size)
            target, bad_step = np.zeros_like(x), np.array([2**31 - 1], np.int32)
            launch(
                variant,
                (images, 1, 1),
                {
                    "x": x,
                    "score": score,
                    "noise": noise,
                    "target": target,
                    "seeds": seeds,
                    "draw": draw,
                    "factor": factor,
                    "is_batch_norm": is_batch_norm,
                    "bad_step": bad_step,
                    "step": 3,
                    "size": size,
                    "image_count": images,
                },
            )
            doubles = (a.astype(np.float64) for a in (x, score, z))
            wanted = reference(*doubles, factor, is_batch_norm=bool(is_batch_norm))
            yield compare(f"{images}x{size}, batch norm {is_batch_norm}", target, wanted, 1e-6)
