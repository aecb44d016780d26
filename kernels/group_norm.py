"""GroupNorm over NHWC, with SiLU where asked: y = (x - mean) / sqrt(var + epsilon) * gamma + beta.
"bias": of x + channel_bias, one number per channel (and image), as a ResNet block adds its time
embedding between a convolution and the norm. The sum is never rounded to 16 bits.

Bound by memory: 3 passes of 2 bytes (two reads, one write), the second read from L2 where the
activations fit. Two launches: "moments" leaves mean and squared deviation of each chunk of rows,
"apply" merges them (Chan et al. 1979), so that large means lose no digits, and normalises. The
order of the sums is fixed: the same bits every time.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import triton
import triton.language as tl

from .variant import TOLERANCES, Check, Variant, compare, from_storage, to_storage

CHUNKS = 64  # most chunks of one image


@triton.jit
def group_norm(
    x,  # *T [batch, rows, channels]
    out,
    gamma,  # *fp32 [channels]
    beta,
    moments,  # *fp32 [batch, groups, CHUNKS, 2]: mean and sum of squared deviations of each chunk
    channel_bias,  # *T [batch or 1, channels], images bias_batch apart; read where BIAS
    epsilon,
    rows,
    channels,
    groups,
    chunk_rows,
    bias_batch,  # 0: the same for all images
    APPLY: tl.constexpr,
    SILU: tl.constexpr,
    BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,  # channels of a group, rounded up to a power of two
    CHUNKS: tl.constexpr,
):
    chunk = tl.program_id(0)
    image = tl.program_id(1) // groups
    group = tl.program_id(1) % groups
    width = channels // groups
    place = tl.arange(0, WIDTH)
    channel = group * width + place
    is_channel = place < width
    first = chunk * chunk_rows
    last = tl.minimum(first + chunk_rows, rows)
    image_at = image.to(tl.int64) * rows * channels
    moments_at = moments + tl.program_id(1) * CHUNKS * 2
    if BIAS:
        bias_at = channel_bias + image.to(tl.int64) * bias_batch + channel
        bias = tl.load(bias_at, mask=is_channel, other=0.0).to(tl.float32)

    if APPLY:
        index = tl.arange(0, CHUNKS)
        counts = tl.minimum(tl.maximum(rows - index * chunk_rows, 0), chunk_rows) * width
        counts = counts.to(tl.float32)
        is_chunk = counts > 0.0
        means = tl.load(moments_at + index * 2, mask=is_chunk, other=0.0)
        squares = tl.load(moments_at + index * 2 + 1, mask=is_chunk, other=0.0)
        count = tl.sum(counts, 0)
        mean = tl.sum(counts * means, 0) / count
        away = means - mean
        variance = (tl.sum(squares, 0) + tl.sum(counts * away * away, 0)) / count
        inverse = 1.0 / tl.sqrt_rn(variance + epsilon)
        slope = tl.load(gamma + channel, mask=is_channel, other=0.0) * inverse
        offset = tl.load(beta + channel, mask=is_channel, other=0.0) - mean * slope
        for start in range(first, last, ROWS):
            row = start + tl.arange(0, ROWS)
            at = image_at + row[:, None] * channels + channel[None, :]
            is_here = (row[:, None] < last) & is_channel[None, :]
            value = tl.load(x + at, mask=is_here, other=0.0).to(tl.float32)
            if BIAS:
                value += bias[None, :]
            value = value * slope[None, :] + offset[None, :]
            if SILU:
                value = value / (1.0 + tl.exp2(value * -1.4426950408889634))
            tl.store(out + at, value.to(out.dtype.element_ty), mask=is_here)
    else:
        count = 0.0
        mean = 0.0
        square = 0.0
        for start in range(first, last, ROWS):
            row = start + tl.arange(0, ROWS)
            at = image_at + row[:, None] * channels + channel[None, :]
            is_here = (row[:, None] < last) & is_channel[None, :]
            value = tl.load(x + at, mask=is_here, other=0.0).to(tl.float32)
            if BIAS:
                value = tl.where(is_here, value + bias[None, :], 0.0)
            new = (tl.minimum(last - start, ROWS) * width).to(tl.float32)
            new_mean = tl.sum(tl.sum(value, 1), 0) / new
            away = tl.where(is_here, value - new_mean, 0.0)
            new_square = tl.sum(tl.sum(away * away, 1), 0)
            shift = new_mean - mean
            together = count + new
            mean += shift * (new / together)
            square += new_square + shift * shift * (count * new / together)
            count = together
        tl.store(moments_at + chunk * 2, mean)
        tl.store(moments_at + chunk * 2 + 1, square)


PARAMETERS = {
    "x": "*T",
    "out": "*T",
    **dict.fromkeys(("gamma", "beta", "moments"), "*fp32"),
    "channel_bias": "*T",
    "epsilon": "fp32",
    **dict.fromkeys(("rows", "channels", "groups", "chunk_rows", "bias_batch"), "i32"),
}
WIDTHS = (4, 8, 16, 32, 64, 128)


def variants() -> Iterator[Variant]:
    """By channels per group, rounded up: 4..80 in Stable Diffusion (128..2560 in 32 groups)."""
    for dtype in ("fp16", "bf16", "fp32"):
        # float32 is for the interpreter alone.
        for width in (16,) if dtype == "fp32" else WIDTHS:
            # A tile of 4096 elements: 32 registers a thread.
            tile = {"ROWS": 4096 // width, "WIDTH": width, "CHUNKS": CHUNKS}
            for suffix, bias in (("", 0), ("_bias", 1)):
                for shape, apply, silu in (("moments", 0, 0), ("apply", 1, 0), ("silu", 1, 1)):
                    constants = {"APPLY": apply, "SILU": silu, "BIAS": bias, **tile}
                    name = f"w{width}_{shape}{suffix}"
                    yield Variant("group_norm", dtype, name, PARAMETERS, constants)


def chunk_rows(rows: int, tile_rows: int) -> int:
    """Rows of a chunk: whole tiles, and at most CHUNKS chunks."""
    tiles = -(-rows // tile_rows)
    return -(-tiles // CHUNKS) * tile_rows


def reference(x, gamma, beta, *, groups: int, epsilon: float, silu: bool) -> np.ndarray:
    """float64 [batch, rows, channels]."""
    batch, rows, _ = x.shape
    grouped = x.reshape(batch, rows, groups, -1)
    mean = grouped.mean((1, 3), keepdims=True)
    variance = grouped.var((1, 3), keepdims=True)
    y = ((grouped - mean) / np.sqrt(variance + epsilon)).reshape(x.shape) * gamma + beta
    return y / (1 + np.exp(-y)) if silu else y


def check(launch, variant: Variant, rng: np.random.Generator) -> Iterator[Check]:
    """Both launches; "moments" is checked with the variant that applies it plainly."""
    biased = bool(variant.constants["BIAS"])
    stem, suffix = f"w{variant.constants['WIDTH']}", "_bias" if biased else ""
    same = {v.shape: v for v in variants() if v.dtype == variant.dtype}
    first = same[f"{stem}_moments{suffix}"]
    if variant == first:
        variant = same[f"{stem}_apply{suffix}"]
    groups, epsilon = 2, 1e-5
    widest = variant.constants["WIDTH"]
    tile = variant.constants["ROWS"]
    # The bias once for each image, once shared.
    cases = ((widest, False, (1, tile + 3)), (widest // 2 + 1, True, (tile + 3,)))
    for width, is_shared, lengths in (*cases, (widest - 1, False, (1,))):
        for rows in lengths:
            channels = groups * width
            # A mean far from zero, where E[x^2] - E[x]^2 would lose its digits.
            x = to_storage(rng.standard_normal((2, rows, channels)) + 30.0, variant.dtype)
            bias_shape = (1 if is_shared else 2, 1, channels)
            bias = to_storage(5.0 * rng.standard_normal(bias_shape), variant.dtype)
            gamma, beta = rng.standard_normal((2, channels), np.float32)
            out = np.zeros(x.shape, x.dtype)
            per_chunk = chunk_rows(rows, tile)
            arguments = {
                "x": x,
                "out": out,
                "gamma": gamma,
                "beta": beta,
                "moments": np.full((2, groups, CHUNKS, 2), np.nan, np.float32),
                "channel_bias": bias,
                "epsilon": epsilon,
                "rows": rows,
                "channels": channels,
                "groups": groups,
                "chunk_rows": per_chunk,
                "bias_batch": 0 if is_shared else channels,
            }
            grid = (-(-rows // per_chunk), 2 * groups, 1)
            launch(first, grid, arguments)
            launch(variant, grid, arguments)
            silu = bool(variant.constants["SILU"])
            values = from_storage(x, variant.dtype)
            if biased:
                values = values + from_storage(bias, variant.dtype)
            wanted = reference(values, gamma, beta, groups=groups, epsilon=epsilon, silu=silu)
            case = f"{rows} rows, {width} channels a group"
            found = from_storage(out, variant.dtype)
            yield compare(case, found, wanted, TOLERANCES[variant.dtype])
