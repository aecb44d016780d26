"""Where the randomness of a sample comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from . import _core
from .arrays import to_float32
from .checks import check_choice, check_integer, refuse
from .errors import InvalidRequestError

__all__ = ["MAX_SEED", "NOISE_KINDS", "Noise", "check_seed", "draw", "is_list_of_seeds"]

MAX_SEED = 2**64 - 1
NOISE_KINDS = ("torch", "cuda", "philox")
_MAX_COUNT = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Noise:
    """A recipe for unit normal noise; immutable, so the same `Noise` always gives the same numbers.

    Make one with `Noise.torch`, `Noise.cuda`, `Noise.philox` or `Noise.given`. A *stream* made from
    it is what a run consumes: the start latents first, then one draw whenever the sampler asks.

    With a list of seeds, image k draws from its own generator, so it equals the image made alone.
    With one seed, `torch` and `cuda` draw the whole batch from one generator, as diffusers does
    with a single generator; `philox` gives image k the seed `seed + k`.

    Raises:
        InvalidRequestError: A seed is no integer in 0..2**64-1, there is none, or given values are
            no numbers.
    """

    kind: str
    seeds: tuple[int, ...] = ()
    is_shared: bool = False
    values: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.values is None:
            check_choice("noise", self.kind, NOISE_KINDS)
            if not self.seeds:
                refuse("seed", self.seeds, "is one seed, or one per image")

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Noise) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        values = None if self.values is None else (self.values.shape, self.values.tobytes())
        return (self.kind, self.seeds, self.is_shared, values)

    @staticmethod
    def torch(seed: int | Sequence[int]) -> Noise:
        """`torch.randn` of a CPU generator seeded with `seed`, bit for bit (MT19937)."""
        return Noise._seeded("torch", seed)

    @staticmethod
    def cuda(seed: int | Sequence[int]) -> Noise:
        """`torch.randn` of a CUDA generator (Philox4x32-10), computed on the CPU."""
        return Noise._seeded("cuda", seed)

    @staticmethod
    def philox(seed: int | Sequence[int]) -> Noise:
        """Counter-based noise addressed by (seed, draw, element); the fastest."""
        return Noise._seeded("philox", seed)

    @staticmethod
    def given(values: Any) -> Noise:
        """Noise of the caller: float32 [draws, B, ...]; running out of draws is an error."""
        array = to_float32(values, "noise")
        if array.ndim < 2 or not array.size:
            raise InvalidRequestError(
                f"noise: shape {array.shape}, allowed are [draws, B, ...] with at least one draw.",
                param="noise",
            )
        array = array.copy()
        array.flags.writeable = False
        return Noise("given", values=array)

    @staticmethod
    def _seeded(kind: str, seed: int | Sequence[int]) -> Noise:
        if is_list_of_seeds(seed):
            return Noise(kind, tuple(check_seed(value) for value in seed))
        return Noise(kind, (check_seed(seed),), is_shared=True)

    def stream(self, image_count: int) -> _core.NoiseStream:
        """A fresh stream for a batch of `image_count` images.

        Raises:
            InvalidRequestError: The number of seeds is neither 1 nor `image_count`.
        """
        image_count = check_integer("image_count", image_count, 1, _MAX_COUNT)
        if self.values is not None:
            return _core.NoiseStream.array(self.values)
        seeds = list(self.seeds)
        if self.is_shared and self.kind == "philox":
            seeds = [check_seed(seeds[0] + k) for k in range(image_count)]
        elif not self.is_shared and len(seeds) != image_count:
            raise InvalidRequestError(
                f"noise: {len(seeds)} seeds for {image_count} images, allowed is one seed, or one "
                "per image.",
                param="noise",
            )
        if self.kind == "philox":
            return _core.NoiseStream.philox(seeds)
        make = _core.NoiseStream.torch if self.kind == "torch" else _core.NoiseStream.cuda
        return make(seeds, self.is_shared)

    def randn(self, shape: Sequence[int]) -> np.ndarray:
        """The first draw of a fresh stream: float32 of `shape`, whose first axis is the batch.

        Raises:
            InvalidRequestError: `shape` is no sequence of positive integers.
        """
        if not isinstance(shape, Sequence) or not shape:
            refuse("shape", shape, "are the sizes [B, ...]")
        sizes = [check_integer("shape", size, 1, _MAX_COUNT) for size in shape]
        return draw(self.stream(sizes[0]), sizes)


def draw(stream: _core.NoiseStream, shape: Sequence[int]) -> np.ndarray:
    """The next draw of `stream` as float32 of `shape`."""
    count = int(np.prod(shape[1:], dtype=np.int64))
    return stream.draw(shape[0], count).reshape(shape)


def is_list_of_seeds(seed: Any) -> TypeGuard[Sequence[Any]]:
    """A list, a tuple or an array of rank 1; what is in it is not looked at."""
    if isinstance(seed, np.ndarray):
        return seed.ndim == 1
    return isinstance(seed, Sequence) and not isinstance(seed, str | bytes)


def check_seed(seed: Any) -> int:
    """`seed` as an int in 0..2**64-1; anything else raises InvalidRequestError."""
    return check_integer("seed", seed, 0, MAX_SEED)
