"""Where the randomness of a sample comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _core
from .arrays import to_float32
from .errors import InvalidRequestError

MAX_SEED = 2**64 - 1


@dataclass(frozen=True)
class Noise:
    """A recipe for unit normal noise; immutable, so the same `Noise` always gives the same numbers.

    Make one with `Noise.torch`, `Noise.cuda`, `Noise.philox` or `Noise.given`. A *stream* made from
    it is what a run consumes: the start latents first, then one draw whenever the sampler asks.

    With a list of seeds, image k draws from its own generator, so it equals the image made alone.
    With one seed, `torch` and `cuda` draw the whole batch from one generator, as diffusers does
    with a single generator; `philox` gives image k the seed `seed + k`.
    """

    kind: str
    seeds: tuple[int, ...] = ()
    is_shared: bool = False
    values: np.ndarray | None = None

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
        return Noise("given", values=to_float32(values, "noise"))

    @staticmethod
    def _seeded(kind: str, seed: int | Sequence[int]) -> Noise:
        if isinstance(seed, int | np.integer):
            return Noise(kind, (check_seed(seed),), is_shared=True)
        return Noise(kind, tuple(check_seed(value) for value in seed))

    def stream(self, image_count: int) -> _core.NoiseStream:
        """A fresh stream for a batch of `image_count` images.

        Raises:
            InvalidRequestError: The number of seeds is neither 1 nor `image_count`.
        """
        if self.values is not None:
            return _core.NoiseStream.array(self.values)
        seeds = list(self.seeds)
        if self.is_shared and self.kind == "philox":
            seeds = [check_seed(seeds[0] + k) for k in range(image_count)]
        elif not self.is_shared and len(seeds) != image_count:
            raise InvalidRequestError(
                f"noise: {len(seeds)} seeds for {image_count} images; one seed, or one per image.",
                param="noise",
            )
        if self.kind == "philox":
            return _core.NoiseStream.philox(seeds)
        make = _core.NoiseStream.torch if self.kind == "torch" else _core.NoiseStream.cuda
        return make(seeds, self.is_shared)

    def randn(self, shape: Sequence[int]) -> np.ndarray:
        """The first draw of a fresh stream: float32 of `shape`, whose first axis is the batch."""
        return draw(self.stream(shape[0]), shape)


def draw(stream: _core.NoiseStream, shape: Sequence[int]) -> np.ndarray:
    """The next draw of `stream` as float32 of `shape`."""
    count = int(np.prod(shape[1:], dtype=np.int64))
    return stream.draw(shape[0], count).reshape(shape)


def check_seed(seed: Any) -> int:
    """`seed` as an int in 0..2**64-1; anything else raises InvalidRequestError."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise InvalidRequestError(
            f"seed: got {seed!r:.80}; an integer from 0 to {MAX_SEED} is needed.", param="seed"
        )
    if not 0 <= seed <= MAX_SEED:
        raise InvalidRequestError(
            f"seed: got {seed}; allowed are 0 to {MAX_SEED}.", param="seed", limit=MAX_SEED
        )
    return int(seed)
