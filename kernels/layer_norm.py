"""LayerNorm over the last axis: y = (x - mean) / sqrt(var + epsilon) * gamma + beta.

Bound by memory: each element is read and written once, 4 bytes in 16-bit types. One program per
row, which stays in registers between the passes over it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import triton
import triton.language as tl

from .variant import TOLERANCES, Check, Variant, compare, from_storage, to_storage


@triton.jit
def layer_norm(
    x,  # *T [rows, channels], one program per row
    out,
    gamma,  # *fp32 [channels]
    beta,
    epsilon,
    channels,
    WIDTH: tl.constexpr,  # channels, rounded up to a power of two
):
    channel = tl.arange(0, WIDTH)
    is_channel = channel < channels
    at = tl.program_id(0).to(tl.int64) * channels + channel
    value = tl.load(x + at, mask=is_channel, other=0.0).to(tl.float32)
    mean = tl.sum(value, 0) / channels
    away = tl.where(is_channel, value - mean, 0.0)
    inverse = 1.0 / tl.sqrt_rn(tl.sum(away * away, 0) / channels + epsilon)
    slope = tl.load(gamma + channel, mask=is_channel, other=0.0)
    offset = tl.load(beta + channel, mask=is_channel, other=0.0)
    result = away * inverse * slope + offset
    tl.store(out + at, result.to(out.dtype.element_ty), mask=is_channel)


PARAMETERS = {
    **dict.fromkeys(("x", "out"), "*T"),
    **dict.fromkeys(("gamma", "beta"), "*fp32"),
    "epsilon": "fp32",
    "channels": "i32",
}


def variants() -> Iterator[Variant]:
    """ "even": the number of channels is a multiple of 16."""
    for dtype in ("fp16", "bf16", "fp32"):
        for width, warps in ((512, 2), (1024, 4), (2048, 4)):
            yield Variant(
                "layer_norm",
                dtype,
                f"w{width}_even",
                PARAMETERS,
                {"WIDTH": width},
                warps,
                aligned=("channels",),
            )
        yield Variant("layer_norm", dtype, "w2048_any", PARAMETERS, {"WIDTH": 2048})


def reference(x, gamma, beta, epsilon: float) -> np.ndarray:
    """float64 [rows, channels]."""
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta


def check(launch, variant: Variant, rng: np.random.Generator) -> Iterator[Check]:
    width = variant.constants["WIDTH"]
    sizes = (16, width - 16, width) if variant.aligned else (2, width // 2 + 1, width - 1)
    for channels in sizes:
        for rows in (1, 5):
            x = to_storage(rng.standard_normal((rows, channels)) + 10.0, variant.dtype)
            gamma, beta = rng.standard_normal((2, channels), np.float32)
            out = np.zeros(x.shape, x.dtype)
            launch(
                variant,
                (rows, 1, 1),
                {
                    "x": x,
                    "out": out,
                    "gamma": gamma,
                    "beta": beta,
                    "epsilon": 1e-5,
                    "channels": channels,
                },
            )
            wanted = reference(from_storage(x, variant.dtype), gamma, beta, 1e-5)
            case = f"{rows} rows of {channels}"
            found = from_storage(out, variant.dtype)
            yield compare(case, found, wanted, TOLERANCES[variant.dtype])
