"""softmax(scale * Q K^T + mask) V, flash style: the scores never leave the chip.

Bound by the matrix units for long K, and by exp2 close behind at head width 40 (160 FLOP per
exponential). The head width is split into two powers of two, 40 = 32 + 16, 80 = 64 + 16,
160 = 128 + 32, so that the matrix units waste 1.2x, 1.0x and 1.0x instead of 1.6x for the next
power of two. "short": all keys fit one tile (cross-attention to 77 tokens), so nothing is rescaled.
Scores and sums are float32; any finite logits are safe, as the largest of a row is subtracted.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import triton
import triton.language as tl

from .variant import LOG2_E, TOLERANCES, Check, Variant, compare, from_storage, to_storage


@triton.jit
def attention(
    q,  # *T [batch, q_count, heads * WIDTH], rows q_row apart, images q_batch apart; so k, v, out
    k,
    v,
    out,
    mask,  # *fp32 [batch or 1, q_count or 1, k_count], added to the scores
    scale_log2,  # scale * log2(e)
    heads,
    q_count,
    k_count,
    q_batch,
    q_row,
    k_batch,
    k_row,
    v_batch,
    v_row,
    out_batch,
    out_row,
    mask_batch,  # 0: the same for all
    mask_row,
    WIDTH: tl.constexpr,
    HEAD: tl.constexpr,  # the first columns, a power of two
    TAIL: tl.constexpr,  # the rest rounded up to a power of two, or 0
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
    CAUSAL: tl.constexpr,
    MASK: tl.constexpr,
    SHORT: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    image = (tl.program_id(1) // heads).to(tl.int64)
    column = tl.program_id(1) % heads * WIDTH
    head = tl.arange(0, HEAD)
    key = tl.arange(0, KEYS)
    is_row = row[:, None] < q_count
    q_at = q + image * q_batch + column + row[:, None] * q_row
    q_head = tl.load(q_at + head[None, :], mask=is_row, other=0.0)
    if TAIL > 0:
        tail = HEAD + tl.arange(0, TAIL)
        q_tail = tl.load(q_at + tail[None, :], mask=is_row & (tail[None, :] < WIDTH), other=0.0)
    k_image = k + image * k_batch + column
    v_image = v + image * v_batch + column
    mask_image = mask + image * mask_batch

    largest = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    sum_head = tl.zeros((ROWS, HEAD), tl.float32)
    if TAIL > 0:
        sum_tail = tl.zeros((ROWS, TAIL), tl.float32)
    end = k_count
    if CAUSAL:
        end = tl.minimum(k_count, (tl.program_id(0) + 1) * ROWS)
    if SHORT:
        end = KEYS
    for start in range(0, end, KEYS):
        at = start + key
        is_key = at < k_count
        k_at = k_image + at[None, :] * k_row
        k_head = tl.load(k_at + head[:, None], mask=is_key[None, :], other=0.0)
        scores = tl.dot(q_head, k_head, input_precision="ieee")
        if TAIL > 0:
            is_tail = (tail[:, None] < WIDTH) & is_key[None, :]
            k_tail = tl.load(k_at + tail[:, None], mask=is_tail, other=0.0)
            scores = tl.dot(q_tail, k_tail, scores, input_precision="ieee")
        scores = scores * scale_log2
        if MASK:
            added_at = mask_image + row[:, None] * mask_row + at[None, :]
            added = tl.load(added_at, mask=is_row & is_key[None, :], other=0.0)
            scores += added * 1.4426950408889634
        scores = tl.where(is_key[None, :], scores, float("-inf"))
        if CAUSAL:
            scores = tl.where(at[None, :] <= row[:, None], scores, float("-inf"))
        now = tl.maximum(largest, tl.max(scores, 1))
        origin = tl.where(now == float("-inf"), 0.0, now)  # nothing allowed so far
        share = tl.exp2(scores - origin[:, None])
        v_at = v_image + at[:, None] * v_row
        v_head = tl.load(v_at + head[None, :], mask=is_key[:, None], other=0.0)
        if TAIL > 0:
            is_tail = is_key[:, None] & (tail[None, :] < WIDTH)
            v_tail = tl.load(v_at + tail[None, :], mask=is_tail, other=0.0)
        narrow = share.to(v_head.dtype)
        if SHORT:
            total = tl.sum(share, 1)
            sum_head = tl.dot(narrow, v_head, input_precision="ieee")
            if TAIL > 0:
                sum_tail = tl.dot(narrow, v_tail, input_precision="ieee")
        else:
            kept = tl.exp2(largest - origin)
            total = total * kept + tl.sum(share, 1)
            sum_head = tl.dot(narrow, v_head, sum_head * kept[:, None], input_precision="ieee")
            if TAIL > 0:
                sum_tail = tl.dot(narrow, v_tail, sum_tail * kept[:, None], input_precision="ieee")
            largest = now
    inverse = 1.0 / tl.where(total == 0.0, 1.0, total)
    element = out.dtype.element_ty
    out_at = out + image * out_batch + column + row[:, None] * out_row
    tl.store(out_at + head[None, :], (sum_head * inverse[:, None]).to(element), mask=is_row)
    if TAIL > 0:
        result = (sum_tail * inverse[:, None]).to(element)
        tl.store(out_at + tail[None, :], result, mask=is_row & (tail[None, :] < WIDTH))


STRIDES = ("q_batch", "q_row", "k_batch", "k_row", "v_batch", "v_row", "out_batch", "out_row")
PARAMETERS = {
    **dict.fromkeys(("q", "k", "v", "out"), "*T"),
    "mask": "*fp32",
    "scale_log2": "fp32",
    **dict.fromkeys(("heads", "q_count", "k_count", *STRIDES, "mask_batch", "mask_row"), "i32"),
}
SHORT_KEYS = 128

# Head width: (HEAD, TAIL, ROWS, KEYS, warps, stages), and what differs with little shared memory.
_TILES = {
    16: (16, 0, 128, 64, 4, 3, {}),
    24: (16, 16, 128, 64, 4, 3, {}),
    32: (32, 0, 128, 64, 4, 3, {}),
    40: (32, 16, 128, 64, 4, 3, {}),
    64: (64, 0, 128, 64, 4, 3, {}),
    80: (64, 16, 128, 64, 8, 2, {}),
    160: (128, 32, 128, 64, 8, 2, {"KEYS": 32}),
    512: (512, 0, 64, 32, 8, 1, {"ROWS": 32, "KEYS": 16}),
}


_LONGEST_SHORT = 160
_MASKED = (32, 64)


def variants() -> Iterator[Variant]:
    """By head width: any number of keys, few keys ("short"), causal, with a mask. 16, 24 and 32
    are those of small models."""
    for dtype in ("fp16", "bf16"):
        for width in _TILES:
            yield _variant(dtype, f"d{width}", width)
            if width <= _LONGEST_SHORT:
                yield _variant(dtype, f"d{width}_short", width, SHORT=1)
        for width in _MASKED:
            yield _variant(dtype, f"d{width}_mask", width, MASK=1)
        yield _variant(dtype, "d64_causal", 64, CAUSAL=1)
    # For the interpreter alone, one of each kind.
    for width in (40, 160):
        yield _variant("fp32", f"d{width}", width)
    yield _variant("fp32", "d40_short", 40, SHORT=1)
    yield _variant("fp32", "d64_causal", 64, CAUSAL=1)
    yield _variant("fp32", "d64_mask", 64, MASK=1)


def _variant(dtype: str, shape: str, width: int, **flags: int) -> Variant:
    head, tail, rows, keys, warps, stages, small = _TILES[width]
    if dtype == "fp32":  # for tests and small models: half the tile, twice the bytes
        rows, keys, stages, small = min(rows, 32), 16, 1, {}
    if flags.get("MASK"):  # the tile of the mask would be staged in shared memory
        stages = 1
    if flags.get("SHORT"):
        rows, keys, stages = min(rows, 64), SHORT_KEYS, 1
        small = {"ROWS": 32} if width == 160 else {}
    constants = {"WIDTH": width, "HEAD": head, "TAIL": tail, "ROWS": rows, "KEYS": keys}
    constants |= {"CAUSAL": 0, "MASK": 0, "SHORT": 0} | flags
    return Variant(
        "attention",
        dtype,
        shape,
        PARAMETERS,
        constants,
        warps,
        stages,
        aligned=STRIDES,
        small=small,
    )


def grid(q_count: int, batch: int, heads: int, rows: int) -> tuple[int, int, int]:
    return -(-q_count // rows), batch * heads, 1


def reference(q, k, v, *, heads: int, scale: float, causal: bool = False, mask=None) -> np.ndarray:
    """float64 [batch, q_count, heads * width] from arrays of that layout."""
    batch, q_count, channels = q.shape
    width = channels // heads

    def by_head(x: np.ndarray) -> np.ndarray:
        return x.reshape(batch, -1, heads, width).transpose(0, 2, 1, 3)

    scores = by_head(q) @ by_head(k).transpose(0, 1, 3, 2) * scale
    if mask is not None:
        scores = scores + mask
    if causal:
        allowed = np.tril(np.ones(scores.shape[-2:], bool))
        scores = np.where(allowed, scores, -np.inf)
    scores -= scores.max(-1, keepdims=True)
    shares = np.exp(scores)
    shares /= shares.sum(-1, keepdims=True)
    return (shares @ by_head(v)).transpose(0, 2, 1, 3).reshape(batch, q_count, channels)


def check(launch, variant: Variant, rng: np.random.Generator) -> Iterator[Check]:
    """Packed and apart, odd lengths, logits of 1e4."""
    width = variant.constants["WIDTH"]
    causal, masked, short = (bool(variant.constants[f]) for f in ("CAUSAL", "MASK", "SHORT"))
    heads = 1 if width == 512 else 2
    # queries, keys, spread of the values: 30 makes logits near 1e4 for the wider heads
    cases = ((37, 37, 1.0), (130, 70, 30.0), (1, 3, 1.0))
    if short:
        cases = ((33, 77, 1.0), (1, 1, 1.0), (5, 128, 30.0))
    for q_count, k_count, spread in cases:
        batch = 2
        scale = spread**2 / np.sqrt(width)
        shape = (batch, q_count, heads * width)
        q = to_storage(rng.standard_normal(shape), variant.dtype)
        packed = to_storage(rng.standard_normal((batch, k_count, 2 * heads * width)), variant.dtype)
        k, v = packed[..., : heads * width], packed[..., heads * width :]
        mask = None
        if masked:
            mask = np.where(rng.random((batch, 1, 1, k_count)) < 0.3, -1e4, 0.0)
            mask = mask.astype(np.float32)
        wanted = reference(
            *(from_storage(np.ascontiguousarray(x), variant.dtype) for x in (q, k, v)),
            heads=heads,
            scale=scale,
            causal=causal,
            mask=mask,
        )
        out = np.zeros(shape, q.dtype)
        row, k_row = heads * width, 2 * heads * width
        launch(
            variant,
            grid(q_count, batch, heads, variant.constants["ROWS"]),
            {
                "q": q,
                "k": packed,
                "v": packed.reshape(-1)[heads * width :],
                "out": out,
                "mask": mask if masked else np.zeros(4, np.float32),
                "scale_log2": float(scale * LOG2_E),
                "heads": heads,
                "q_count": q_count,
                "k_count": k_count,
                "q_batch": q_count * row,
                "q_row": row,
                "k_batch": k_count * k_row,
                "k_row": k_row,
                "v_batch": k_count * k_row,
                "v_row": k_row,
                "out_batch": q_count * row,
                "out_row": row,
                "mask_batch": k_count if masked else 0,
                "mask_row": 0,
            },
        )
        found = from_storage(out, variant.dtype)
        # Large logits multiply the rounding of the scores, 1e4 * 2^-24, into the exponential.
        tolerance = TOLERANCES[variant.dtype] * (1 if spread == 1.0 else 20)
        case = f"{q_count} queries, {k_count} keys, spread {spread:g}"
        yield compare(case, found, wanted, tolerance)
