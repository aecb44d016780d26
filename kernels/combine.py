"""COMBINE of csrc/engine/program.h in one pass: guidance, conversion of the prediction, the update
of the sampler, fresh noise, and the next input of the network, scaled and cast.

    total = sum(w * latent) + sum(p * output_positive + n * output_negative) + noise_weight * z
    target = total;  input rows (one or both guidance halves) = T(total * scale)

Bound by launch latency at latent sizes: 4x64x64 at batch 8 moves about 4 MB. Each operand is read
once, each result written once. With noise, one Philox counter makes four elements, so a tile is
[GROUPS, 8] places of four quarters. In float32 the sums are those of csrc/cpu/combine.h bit for
bit, where the sources come in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import triton
import triton.language as tl

from .philox import normals
from .variant import Check, Variant, compare, from_storage, to_storage

LATENTS = 8  # sources of each kind that one launch takes
OUTPUTS = 8
GROUPS = 32  # of 32 elements: 1024 elements per program


@triton.jit
def combine(
    latents,  # *fp32 [images, size] each
    latent_weights,  # 0: the slot is empty
    outputs,  # *T [rows, size] each
    positive_weights,
    negative_weights,
    factor_rows,  # row of `factors` that multiplies both weights of the output, or -1
    factors,  # *fp32 [output registers, images], from RESCALE
    noise_weight,
    seeds,  # *u64 [images]
    draw,
    target,  # *fp32 [images, size]
    target_size,  # size, or 0: no target
    network_input,  # *T [rows, size]
    scale,
    input_halves,  # 0: none, 1: the positive rows, 2: both halves
    level,  # *u32: the noise level of the next network run, copied to where the network reads it
    network_level,
    level_words,  # 0: nothing is copied
    bad_step,  # *i32: least step with NaN or infinity
    step,
    size,  # elements per image
    image_count,
    images_per_run,
    halves,  # rows per image: 2 with guidance, the negative half of a run first
    NOISE: tl.constexpr,
    GROUPS: tl.constexpr,
):
    image = tl.program_id(1)
    run_start = image // images_per_run * images_per_run
    run_images = tl.minimum(images_per_run, image_count - run_start)
    negative_row = (image + (halves - 1) * run_start).to(tl.int64)
    positive_row = negative_row + (halves - 1) * run_images
    image_at = image.to(tl.int64) * size
    negative_at = negative_row * size
    positive_at = positive_row * size

    group = tl.program_id(0) * GROUPS + tl.arange(0, GROUPS)
    place = tl.arange(0, 8)
    if NOISE:
        counter = group[:, None] * 8 + place[None, :]
        z = normals(tl.load(seeds + image), draw.to(tl.uint64), counter)
    bad = 0
    for quarter in tl.static_range(4):
        element = group[:, None] * 32 + (quarter * 8 + place[None, :])
        total = tl.zeros(element.shape, tl.float32)
        for k in tl.static_range(8):
            limit = tl.where(latent_weights[k] != 0.0, size, 0)
            value = tl.load(latents[k] + image_at + element, mask=element < limit, other=0.0)
            total += latent_weights[k] * value
        for k in tl.static_range(8):
            factor_at = factors + factor_rows[k] * image_count + image
            factor = tl.load(factor_at, mask=factor_rows[k] >= 0, other=1.0)
            limit = tl.where(positive_weights[k] != 0.0, size, 0)
            value = tl.load(outputs[k] + positive_at + element, mask=element < limit, other=0.0)
            total += (positive_weights[k] * factor) * value.to(tl.float32)
            limit = tl.where(negative_weights[k] != 0.0, size, 0)
            value = tl.load(outputs[k] + negative_at + element, mask=element < limit, other=0.0)
            total += (negative_weights[k] * factor) * value.to(tl.float32)
        if NOISE:
            total += noise_weight * z[quarter]
        bad = tl.maximum(bad, tl.max(tl.where(tl.abs(total) < float("inf"), 0, 1)))
        tl.store(target + image_at + element, total, mask=element < target_size)
        scaled = (total * scale).to(network_input.dtype.element_ty)
        limit = tl.where(input_halves > 0, size, 0)
        tl.store(network_input + positive_at + element, scaled, mask=element < limit)
        limit = tl.where(input_halves > 1, size, 0)
        tl.store(network_input + negative_at + element, scaled, mask=element < limit)
    if bad != 0:
        tl.atomic_min(bad_step, step)
    if (tl.program_id(0) == 0) & (image == 0):
        for start in range(0, level_words, 128):
            word = start + tl.arange(0, 128)
            words = tl.load(level + word, mask=word < level_words)
            tl.store(network_level + word, words, mask=word < level_words)


PARAMETERS = {
    "latents": ("*fp32",) * LATENTS,
    "latent_weights": ("fp32",) * LATENTS,
    "outputs": ("*T",) * OUTPUTS,
    "positive_weights": ("fp32",) * OUTPUTS,
    "negative_weights": ("fp32",) * OUTPUTS,
    "factor_rows": ("i32",) * OUTPUTS,
    "factors": "*fp32",
    "noise_weight": "fp32",
    "seeds": "*u64",
    "draw": "u64",
    "target": "*fp32",
    "target_size": "i32",
    "network_input": "*T",
    "scale": "fp32",
    "input_halves": "i32",
    "level": "*u32",
    "network_level": "*u32",
    "level_words": "i32",
    "bad_step": "*i32",
    "step": "i32",
    "size": "i32",
    "image_count": "i32",
    "images_per_run": "i32",
    "halves": "i32",
}


def variants() -> Iterator[Variant]:
    """ "even": the size of an image is a multiple of 16, so loads are 16 bytes wide."""
    for dtype in ("fp32", "fp16", "bf16"):
        for shape, aligned in (("even", ("size", "target_size")), ("any", ())):
            for noise in (0, 1):
                yield Variant(
                    "combine",
                    dtype,
                    f"{shape}_noise" if noise else shape,
                    PARAMETERS,
                    {"NOISE": noise, "GROUPS": GROUPS},
                    warps=2,
                    fuses_fma=False,
                    aligned=aligned,
                )


def grid(size: int, image_count: int) -> tuple[int, int, int]:
    return -(-size // (32 * GROUPS)), image_count, 1


def reference(arguments: dict, noise: np.ndarray | None, dtype: str) -> dict[str, np.ndarray]:
    """`target` and `network_input` in float64 from the kernel's own arguments.

    noise: float64 [images, size], the draw, where it is used.
    """
    images, size, per_run = (arguments[k] for k in ("image_count", "size", "images_per_run"))
    rows = {"positive": [], "negative": []}
    for start in range(0, images, per_run):
        members = range(min(per_run, images - start))
        shift = len(members) if arguments["halves"] == 2 else 0
        first = start * arguments["halves"]
        rows["negative"] += [first + i for i in members]
        rows["positive"] += [first + shift + i for i in members]
    total = np.zeros((images, size))
    for weight, latent in zip(arguments["latent_weights"], arguments["latents"], strict=True):
        if weight:
            total += weight * latent.reshape(images, size).astype(np.float64)
    for half in rows:
        used = zip(
            arguments[f"{half}_weights"],
            arguments["outputs"],
            arguments["factor_rows"],
            strict=True,
        )
        for weight, output, row in used:
            if weight:
                values = from_storage(output, dtype).reshape(-1, size)
                factor = arguments["factors"][row][:, None] if row >= 0 else 1.0
                total += factor * weight * values[rows[half]]
    if noise is not None:
        total += arguments["noise_weight"] * noise
    scaled = from_storage(arguments["network_input"].copy(), dtype).reshape(-1, size)
    for half, least in (("positive", 1), ("negative", 2)):
        if arguments["input_halves"] >= least:
            scaled[rows[half]] = total * arguments["scale"]
    return {"target": total, "network_input": scaled}


def example(rng: np.random.Generator, variant: Variant, *, images: int, size: int, **given) -> dict:
    """Random arguments: two latents and two guided outputs, unless `given` says otherwise."""
    halves = given.get("halves", 2)

    def weights(count: int, used: int) -> tuple[float, ...]:
        drawn = rng.uniform(-2, 2, used).astype(np.float32)
        return tuple(map(float, drawn)) + (0.0,) * (count - used)

    def output() -> np.ndarray:
        return to_storage(rng.standard_normal((halves * images, size)), variant.dtype)

    arguments = {
        "latents": tuple(rng.standard_normal((images, size), np.float32) for _ in range(LATENTS)),
        "latent_weights": weights(LATENTS, 2),
        "outputs": tuple(output() for _ in range(OUTPUTS)),
        "positive_weights": weights(OUTPUTS, 2),
        "negative_weights": weights(OUTPUTS, 2 if halves == 2 else 0),
        "factor_rows": (-1, 1) + (-1,) * (OUTPUTS - 2),
        "factors": rng.uniform(0.5, 1, (3, images)).astype(np.float32),
        "noise_weight": 0.75,
        "seeds": rng.integers(0, 2**63, images, dtype=np.uint64),
        "draw": int(rng.integers(0, 2**40)),
        "target": np.zeros((images, size), np.float32),
        "target_size": size,
        "network_input": output(),
        "scale": 0.625,
        "input_halves": halves,
        "level": rng.integers(0, 2**31, 2 * images, dtype=np.uint32),
        "network_level": np.zeros(2 * images, np.uint32),
        "level_words": 2 * images,
        "bad_step": np.array([2**31 - 1], np.int32),
        "step": 3,
        "size": size,
        "image_count": images,
        "images_per_run": images,
        "halves": halves,
    }
    arguments.update(given)
    return arguments


def check(launch, variant: Variant, rng: np.random.Generator, draw_noise) -> Iterator[Check]:
    """Compares with the reference; `draw_noise(seeds, draw, size)` is csrc/rng's philox stream."""
    even = variant.shape.startswith("even")
    has_noise = bool(variant.constants["NOISE"])
    # images, elements, halves, images per run
    cases = (
        ((1, 64, 1, 1), (3, 1040, 2, 2)) if even else ((1, 1, 2, 1), (2, 31, 2, 2), (3, 1027, 2, 1))
    )
    for images, size, halves, per_run in cases:
        arguments = example(
            rng, variant, images=images, size=size, halves=halves, images_per_run=per_run
        )
        noise = None
        if has_noise:
            noise = draw_noise(arguments["seeds"], arguments["draw"], size)
        wanted = reference(arguments, noise, variant.dtype)
        launch(variant, grid(size, images), arguments)
        case = f"{images}x{size}, {halves} halves, {per_run} images per run"
        found = from_storage(arguments["network_input"], variant.dtype).reshape(-1, size)
        # The type's own rounding for the stored input, float32's for the sum.
        tolerance = {"fp32": 1e-6, "fp16": 1e-3, "bf16": 8e-3}[variant.dtype]
        yield compare(case + ", target", arguments["target"], wanted["target"], 1e-6)
        yield compare(case + ", input", found, wanted["network_input"], tolerance)
        yield compare(
            case + ", level", arguments["network_level"], arguments["level"].astype(float), 0.0
        )
        yield compare(case + ", finite", arguments["bad_step"], np.array([2.0**31 - 1]), 0.0)
