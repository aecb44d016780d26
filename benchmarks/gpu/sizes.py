"""What is timed: the shapes of Stable Diffusion 1.5 and XL, with the bytes and operations counted
that a launch cannot avoid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from kernels import attention, combine, geglu, group_norm, manifest
from kernels.variant import LOG2_E, Variant, to_storage


@dataclass(frozen=True)
class Timed:
    """One launch at a true size: bytes moved at least, and floating-point operations."""

    case: str
    variant: Variant
    grid: tuple[int, int, int]
    arguments: dict[str, Any]
    bytes: float
    flops: float


def find(name: str) -> Variant:
    return next(v for v in manifest.compiled() if v.name == name)


def timed(rng: np.random.Generator, compiled: Any) -> Iterator[Timed]:
    """`compiled` puts the constants of the architecture into a variant."""
    for side in (64, 128):
        for noise in ("", "_noise"):
            variant = compiled(find(f"combine.fp16.even{noise}"))
            images, size = 8, 4 * side * side
            arguments = combine.example(rng, variant, images=images, size=size)
            # 2 latents and the target in float32; 2 guided outputs and the input of both halves.
            moved = images * size * (3 * 4 + 6 * 2)
            grid = combine.grid(size, images)
            yield Timed(
                f"combine 4x{side}x{side}, batch 8{', noise' if noise else ''}",
                variant,
                grid,
                arguments,
                moved,
                0,
            )
    for width, heads, queries, keys, shape in (
        (40, 8, 4096, 4096, "d40"),
        (64, 10, 4096, 4096, "d64"),
        (80, 8, 1024, 1024, "d80"),
        (160, 8, 256, 256, "d160"),
        (40, 8, 4096, 77, "d40_short"),
        (64, 10, 4096, 77, "d64_short"),
        (512, 1, 4096, 4096, "d512"),
    ):
        yield attention_of(
            rng, compiled(find(f"attention.fp16.{shape}")), width, heads, queries, keys
        )
    for rows, channels, width in ((4096, 320, 16), (1024, 640, 32), (65536, 128, 4)):
        for part in ("moments", "silu"):
            yield _group_norm(
                rng, compiled(find(f"group_norm.fp16.w{width}_{part}")), rows, channels
            )
    for rows, channels in ((8192, 1280), (2048, 2560)):
        variant = compiled(find("geglu.fp16.even"))
        x = to_storage(rng.standard_normal((rows, 2 * channels)), "fp16")
        out = np.zeros((rows, channels), np.float16)
        arguments = {"x": x, "out": out, "channels": channels}
        moved = rows * channels * 6
        grid = geglu.grid(rows, channels)
        yield Timed(f"geglu {rows}x{channels}", variant, grid, arguments, moved, 0)


def attention_of(
    rng: np.random.Generator, variant: Variant, width: int, heads: int, queries: int, keys: int
) -> Timed:
    batch, row = 2, heads * width
    q, out = (to_storage(rng.standard_normal((batch, queries, row)), "fp16") for _ in range(2))
    k, v = (to_storage(rng.standard_normal((batch, keys, row)), "fp16") for _ in range(2))
    strides = {"q": queries, "k": keys, "v": keys, "out": queries}
    arguments = {
        "q": q,
        "k": k,
        "v": v,
        "out": out,
        "mask": np.zeros(4, np.float32),
        "scale_log2": float(LOG2_E / np.sqrt(width)),
        "heads": heads,
        "q_count": queries,
        "k_count": keys,
        "mask_batch": 0,
        "mask_row": 0,
        **{f"{name}_batch": count * row for name, count in strides.items()},
        **{f"{name}_row": row for name in strides},
    }
    return Timed(
        f"attention d={width}, {heads} heads, {queries} x {keys}, batch {batch}",
        variant,
        attention.grid(queries, batch, heads, variant.constants["ROWS"]),
        arguments,
        2 * batch * row * (2 * queries + 2 * keys),
        4.0 * batch * heads * queries * keys * width,
    )


def _group_norm(rng: np.random.Generator, variant: Variant, rows: int, channels: int) -> Timed:
    batch, groups = 2, 32
    x = to_storage(rng.standard_normal((batch, rows, channels)), "fp16")
    per_chunk = group_norm.chunk_rows(rows, variant.constants["ROWS"])
    gamma, beta = rng.standard_normal((2, channels), np.float32)
    arguments = {
        "x": x,
        "out": np.zeros_like(x),
        "gamma": gamma,
        "beta": beta,
        "channel_bias": np.zeros(channels, np.float16),
        "bias_batch": 0,
        "moments": np.ones((batch, groups, group_norm.CHUNKS, 2), np.float32),
        "epsilon": 1e-5,
        "rows": rows,
        "channels": channels,
        "groups": groups,
        "chunk_rows": per_chunk,
    }
    passes = 2 if variant.constants["APPLY"] else 1
    part = variant.shape.split("_")[1]
    return Timed(
        f"group_norm {part}, {rows} rows of {channels}",
        variant,
        (-(-rows // per_chunk), batch * groups, 1),
        arguments,
        passes * x.nbytes,
        0,
    )
