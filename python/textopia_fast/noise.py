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
from .noise_streams import (
    ArrayStream,
    FunctionStream,
    NoiseFunction,
    Stream,
    draw,
    generator_stream,
    read_generators,
)

__all__ = ["MAX_SEED", "NOISE_KINDS", "Noise", "check_seed", "is_list_of_seeds"]

MAX_SEED = 2**64 - 1
NOISE_KINDS = ("torch", "cuda", "philox", "brownian")
_MAX_COUNT = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Noise:
    """A recipe for unit normal noise; immutable, so the same `Noise` always gives the same numbers.

    Make one with `Noise.torch`, `cuda`, `philox`, `brownian`, `given` or `from_generator` (the last
    draws from the caller's generator, which goes on). A *stream* made from it is what a run
    consumes: the start latents first, then one draw whenever the sampler asks.

    With a list of seeds, image k draws from its own generator, so it equals the image made alone.
    With one seed, `torch` and `cuda` draw the whole batch from one generator, as diffusers does
    with a single generator; `philox` and `brownian` give image k the seed `seed + k`.

    Raises:
        InvalidRequestError: A seed is no integer in 0..2**64-1, there is none, or given values are
            no numbers.
    """

    kind: str
    seeds: tuple[int, ...] = ()
    is_shared: bool = False
    values: np.ndarray | None = None
    source: NoiseFunction | tuple[Any, ...] | None = None  # a function, or generators

    def __post_init__(self) -> None:
        if self.values is None and self.source is None:
            check_choice("noise", self.kind, NOISE_KINDS)
            if not self.seeds:
                refuse("seed", self.seeds, "is one seed, or one per image")

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Noise) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        values = None if self.values is None else (self.values.shape, self.values.tobytes())
        source = tuple(map(id, self.source)) if isinstance(self.source, tuple) else self.source
        return (self.kind, self.seeds, self.is_shared, values, source)

    @staticmethod
    def torch(seed: int | Sequence[int]) -> Noise:
        """`torch.randn` of a CPU generator seeded with `seed`, bit for bit (MT19937)."""
        return Noise._seeded("torch", seed)

    @staticmethod
    def cuda(seed: int | Sequence[int]) -> Noise:
        """`torch.randn` of a CUDA generator (Philox4x32-10), computed on the CPU.

        Holds for tensors of which a GPU makes each element in a thread of its own: up to 2048
        elements per multiprocessor. Rounded once; a GPU's own last bits differ.
        """
        return Noise._seeded("cuda", seed)

    @staticmethod
    def philox(seed: int | Sequence[int]) -> Noise:
        """Counter-based noise addressed by (seed, draw, element); the fastest."""
        return Noise._seeded("philox", seed)

    @staticmethod
    def brownian(seed: int | Sequence[int]) -> Noise:
        """Increments of one Brownian path over sigma per image, for SDE and ancestral samplers.

        The path depends on the seed alone, so 20 and 40 steps follow the same one. Draws that
        belong to no interval (the start, churn, Langevin steps, samplers that do not name one) are
        those of `torch`.
        """
        return Noise._seeded("brownian", seed)

    @staticmethod
    def from_generator(generator: Any) -> Noise:
        """Noise of the caller's generators, drawn as diffusers draws.

        Args:
            generator: A torch.Generator of the CPU, whose numbers are torch's bit for bit; one of
                CUDA, whose numbers are computed on the CPU (see `cuda`); a NumPy RandomState or
                Generator; or a list of one per image, each of which draws [1, ...]. A single one
                draws the whole batch at once. Afterwards its state is as if its own library had
                drawn.

        Raises:
            InvalidRequestError: Something else, or a generator of another device.
        """
        return Noise("generator", source=read_generators(generator))

    @staticmethod
    def given(values: Any) -> Noise:
        """Noise of the caller: float32 [draws, B, ...], or a function that makes it.

        `function(draw, shape)` is called for draw 0, 1, ... of a run when it is needed. Too few
        draws, or another shape than the latents', is an error.
        """
        if callable(values):
            return Noise("given", source=values)
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

    def image_seeds(self, image_count: int) -> tuple[int, ...]:
        """The seed that makes each image alone; none where there is no such seed."""
        if self.is_shared and self.kind in ("philox", "brownian"):
            return tuple(check_seed(self.seeds[0] + k) for k in range(image_count))
        return () if self.is_shared and image_count > 1 else self.seeds

    def stream(self, image_count: int) -> Stream:
        """A fresh stream for a batch of `image_count` images.

        Raises:
            InvalidRequestError: The number of seeds is neither 1 nor `image_count`.
        """
        image_count = check_integer("image_count", image_count, 1, _MAX_COUNT)
        if self.values is not None:
            return ArrayStream(self.values)
        if self.source is not None:
            if isinstance(self.source, tuple):
                return generator_stream(self.source, image_count)
            return FunctionStream(self.source)
        seeds = list(self.seeds)
        if self.is_shared and self.kind in ("philox", "brownian"):
            seeds = list(self.image_seeds(image_count))
        elif not self.is_shared and len(seeds) != image_count:
            raise InvalidRequestError(
                f"noise: {len(seeds)} seeds for {image_count} images, allowed is one seed, or one "
                "per image.",
                param="noise",
            )
        if self.kind == "philox":
            return _core.NoiseStream.philox(seeds)
        if self.kind == "brownian":
            return _core.BrownianStream.of_seeds(seeds)
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


def is_list_of_seeds(seed: Any) -> TypeGuard[Sequence[Any]]:
    """A list, a tuple or an array of rank 1; what is in it is not looked at."""
    if isinstance(seed, np.ndarray):
        return seed.ndim == 1
    return isinstance(seed, Sequence) and not isinstance(seed, str | bytes)


def check_seed(seed: Any, name: str = "seed") -> int:
    """`seed` as an int in 0..2**64-1; anything else raises InvalidRequestError."""
    return check_integer(name, seed, 0, MAX_SEED)
