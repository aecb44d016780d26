"""Philox4x32-10 and two mappings to normals in NumPy, from the paper and from noise.h."""

from __future__ import annotations

import numpy as np


def philox(counter: np.ndarray, key: tuple[int, int]) -> np.ndarray:
    """Salmon et al. 2011, section 3.3. counter: uint32 [n, 4]; returns uint32 [n, 4]."""
    x = [column.astype(np.uint64) for column in counter.T]
    k0, k1 = key
    low = np.uint64(0xFFFFFFFF)
    for _ in range(10):
        product0 = x[0] * np.uint64(0xD2511F53)
        product1 = x[2] * np.uint64(0xCD9E8D57)
        x = [
            (product1 >> np.uint64(32)) ^ x[1] ^ np.uint64(k0),
            product1 & low,
            (product0 >> np.uint64(32)) ^ x[3] ^ np.uint64(k1),
            product0 & low,
        ]
        k0 = (k0 + 0x9E3779B9) & 0xFFFFFFFF
        k1 = (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(x, axis=1).astype(np.uint32)


def key_of(seed: int) -> tuple[int, int]:
    return seed & 0xFFFFFFFF, seed >> 32


def box_muller(u1: np.ndarray, u2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    radius = np.sqrt(-2.0 * np.log(u1))
    return radius * np.cos(2 * np.pi * u2), radius * np.sin(2 * np.pi * u2)


def philox_normals(seed: int, draw: int, count: int) -> np.ndarray:
    """What draw number `draw` of a philox stream should be; float64 [count]."""
    groups = -(-count // 32)
    c = np.arange(groups * 8, dtype=np.uint64)
    counter = np.stack([c, c >> np.uint64(32), c * 0 + draw % 2**32, c * 0 + draw // 2**32], axis=1)
    words = philox(counter.astype(np.uint32), key_of(seed))
    # Rounded to float32 twice, which decides about the smallest radii.
    u1 = (words >> 1).astype(np.float32).astype(np.float64) * 2.0**-31 + 2.0**-32
    u1 = u1.astype(np.float32).astype(np.float64)
    u2 = (words >> 8) * 2.0**-24
    quarters = [*box_muller(u1[:, 0], u2[:, 1]), *box_muller(u1[:, 2], u2[:, 3])]
    # [quarter, group, place] to [group, quarter, place]
    return np.stack(quarters).reshape(4, groups, 8).transpose(1, 0, 2).reshape(-1)[:count]


def cuda_normals(seed: int, draw: int, count: int) -> np.ndarray:
    """torch.randn of a CUDA generator where one thread makes one element; float64 [count]."""
    element = np.arange(count, dtype=np.uint64)
    counter = np.stack([element * 0 + draw, element * 0, element, element * 0], axis=1)
    words = philox(counter.astype(np.uint32), key_of(seed)).astype(np.float64)
    u = words[:, 0] * 2.0**-32 + 2.0**-33
    v = words[:, 1] * 2.0**-32 + 2.0**-33
    return box_muller(u, v)[1]
