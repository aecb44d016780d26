"""Variations of a start: towards the noise of a second seed, and of a picture of another size.

The numbers are those of stable-diffusion-webui's options of the same names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .checks import check_number, refuse
from .noise import Noise
from .request import check_size, expand_seeds

__all__ = ["Variation", "read_variation", "slerp"]

# Columns whose cosine is nearer to 1 on average have no direction to turn in.
_PARALLEL = 0.9995


@dataclass(frozen=True)
class Variation:
    """How the start latents differ from the first draw of the seeds.

    Attributes:
        subnoise: Noise of the second seeds; None without.
        strength: 0 keeps the first seed's noise, 1 takes the second's.
        resize_from: Latent height and width whose noise is put in the middle; None without.
    """

    subnoise: Noise | None
    strength: float
    resize_from: tuple[int, int] | None

    def apply(self, start: np.ndarray, noise: Noise) -> np.ndarray:
        """`start`, unit normal float32 [B, C, H, W] of `noise`, varied; not changed in place."""
        shape = start.shape
        if self.resize_from is not None:
            shape = (*shape[:2], *self.resize_from)
        varied = start if shape == start.shape else noise.randn(shape)
        if self.subnoise is not None:
            varied = slerp(self.strength, varied, self.subnoise.randn(shape))
        return varied if shape == start.shape else _put_in_middle(varied, start)


def read_variation(
    subseed: Any, strength: Any, resize_from: Any, noise: Noise, image_count: int, factor: int
) -> Variation | None:
    """The arguments `subseed`, `subseed_strength` and `seed_resize_from` of a call, or None.

    Args:
        subseed: An integer (image k gets subseed + k), one per image, or None.
        strength: In 0..1.
        resize_from: (height, width) in pixels, multiples of `factor`; or None.
        noise: Of the call; a variation needs one with a seed per image.
        image_count, factor: Images of the call, pixels per latent.

    Raises:
        InvalidRequestError: Out of range, a strength without a subseed, or noise without seeds.
    """
    amount = check_number("subseed_strength", strength)
    if not 0.0 <= amount <= 1.0:
        refuse("subseed_strength", strength, "are numbers 0..1")
    if amount and subseed is None:
        refuse("subseed", subseed, "with a subseed_strength are integers")
    seeds = () if subseed is None else expand_seeds(subseed, image_count, "subseed")
    size = None
    if resize_from is not None:
        is_pair = isinstance(resize_from, Sequence) and len(resize_from) == 2
        if not is_pair or None in resize_from:
            refuse("seed_resize_from", resize_from, "are (height, width) in pixels")
        height, width = (check_size("seed_resize_from", side, 0, factor) for side in resize_from)
        size = (height // factor, width // factor)
    if not amount and size is None:
        return None
    if not noise.seeds or noise.is_shared:
        name = "subseed" if amount else "seed_resize_from"
        refuse(name, subseed if amount else resize_from, "is none without a seed per image")
    return Variation(Noise(noise.kind, seeds) if amount else None, amount, size)


def slerp(strength: float, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """From a to b on the arc between them, column by column: Shoemake 1985.

    a, b: float32 [B, C, H, W]; the vectors are the columns, of length H, as the user interfaces
    take them. Images whose columns are nearly parallel on average, and columns that are exactly
    parallel or opposite, are mixed on the straight line.
    """
    low, high = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(low, axis=2) * np.linalg.norm(high, axis=2)
    products = (low * high).sum(axis=2)
    cosine = np.divide(products, lengths, out=np.ones_like(products), where=lengths > 0.0)
    omega = np.arccos(cosine.clip(-1.0, 1.0))
    sine = np.sin(omega)
    is_line = (sine < 1e-6) | (cosine.mean(axis=(1, 2), keepdims=True) > _PARALLEL)
    sine = np.where(is_line, 1.0, sine)
    weight_a = np.where(is_line, 1.0 - strength, np.sin((1.0 - strength) * omega) / sine)
    weight_b = np.where(is_line, strength, np.sin(strength * omega) / sine)
    mixed = weight_a[:, :, None] * low + weight_b[:, :, None] * high
    return mixed.astype(np.float32)


def _put_in_middle(small: np.ndarray, around: np.ndarray) -> np.ndarray:
    """`around` with the middle of `small` in its middle, each cut to the other's size."""
    to: list[slice] = [slice(None), slice(None)]
    of: list[slice] = [slice(None), slice(None)]
    for own, other in zip(around.shape[2:], small.shape[2:], strict=True):
        # Half of an odd difference is rounded down, whichever of the two is larger.
        offset = (own - other) // 2
        length = other if offset >= 0 else other + 2 * offset
        to.append(slice(max(offset, 0), max(offset, 0) + length))
        of.append(slice(max(-offset, 0), max(-offset, 0) + length))
    result = around.copy()
    result[tuple(to)] = small[tuple(of)]
    return result
