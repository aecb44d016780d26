"""Streams of noise from what a caller has: generators of torch and NumPy, arrays, functions.

A native stream is lent out for the draws of one tensor shape; afterwards a generator stands where
its own library would have left it. torch is never imported: its generators are asked.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from . import _core
from .arrays import to_float32
from .checks import refuse
from .errors import InvalidRequestError

__all__ = [
    "ArrayStream",
    "CallersStream",
    "FunctionStream",
    "GeneratorStream",
    "NoiseFunction",
    "Stream",
    "draw",
    "generator_stream",
    "lend",
    "read_generators",
]

NoiseFunction = Callable[[int, tuple[int, ...]], Any]
"""`function(draw, shape)` gives unit normal numbers; draws count from 0, the start of a run."""

_DEVICES = {
    "cpu": _core.CallerStream.torch_states,
    "cuda": _core.CallerStream.cuda_states,
}
_lent: set[int] = set()  # generators that a call draws from now
_lock = threading.Lock()


class CallersStream(ABC):
    """Draws from something that the caller has.

    `is_shared`: one generator draws the whole batch at once.
    """

    is_shared = False

    @abstractmethod
    def lend(self, shape: tuple[int, ...], draw_count: int) -> AbstractContextManager[Any]:
        """A context with a native stream for `draw_count` draws of `shape`, [B, ...]."""

    def draw(self, image_count: int, count_per_image: int) -> np.ndarray:
        """The next draw, float32 [image_count, count_per_image], as of a native stream."""
        return draw(self, (image_count, count_per_image))


Stream = _core.NoiseStream | CallersStream


def lend(
    stream: Stream | None,
    shape: Sequence[int],
    intervals: Sequence[tuple[float, float] | None],
    use: Callable[[Any], Any],
) -> Any:
    """`use(native)`, with the native stream for draws of `shape` over `intervals` (None: none)."""
    if type(stream) is _core.BrownianStream:
        stream.follow([interval or (0.0, 0.0) for interval in intervals])
    if stream is None or isinstance(stream, _core.NoiseStream):
        return use(stream)
    with stream.lend(tuple(shape), len(intervals)) as native:
        return use(native)


def draw(
    stream: Stream, shape: Sequence[int], interval: tuple[float, float] | None = None
) -> np.ndarray:
    """The next draw of `stream` as float32 of `shape`."""
    count = int(np.prod(shape[1:], dtype=np.int64))

    def one(native: _core.NoiseStream) -> np.ndarray:
        return native.draw(shape[0], count)

    values: np.ndarray = lend(stream, shape, [interval], one)
    return values.reshape(shape)


def read_generators(generator: Any) -> tuple[Any, ...]:
    """One generator, or those of a list, checked: all of torch, or all of NumPy.

    Raises:
        InvalidRequestError: Something else, an empty list, or a device that is not the CPU or CUDA.
    """
    found = tuple(generator) if isinstance(generator, list | tuple) else (generator,)
    kinds = {"torch" if _is_torch(one) else "numpy" for one in found}
    numpy = (np.random.RandomState, np.random.Generator)  # a module that only this needs
    if len(kinds) != 1 or not all(_is_torch(one) or isinstance(one, numpy) for one in found):
        refuse(
            "generator",
            generator,
            "are torch.Generator, numpy.random.Generator, numpy.random.RandomState, or a list of "
            "one of torch's or NumPy's per image",
        )
    devices = {_device(one) for one in found if _is_torch(one)}
    for device in sorted(devices):
        if device not in _DEVICES or len(devices) > 1:
            raise InvalidRequestError(
                f"generator: of {' and '.join(sorted(devices))}, allowed is cpu or cuda.",
                hint='A generator of torch.Generator("cpu") gives the same noise everywhere.',
                param="generator",
            )
    return found


def generator_stream(generators: tuple[Any, ...], image_count: int) -> CallersStream:
    """A stream of what `read_generators` gave.

    Raises:
        InvalidRequestError: The number of generators is neither 1 nor `image_count`.
    """
    if len(generators) not in (1, image_count):
        raise InvalidRequestError(
            f"generator: {len(generators)} for {image_count} images, allowed are one, or one per "
            "image.",
            param="generator",
        )
    return (_TorchStream if _is_torch(generators[0]) else _NumpyStream)(generators)


class ArrayStream(CallersStream):
    """Draws that were made beforehand, [draws, B, ...]."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values
        self._used = 0

    @contextmanager
    def lend(self, shape: tuple[int, ...], draw_count: int) -> Iterator[_core.NoiseStream | None]:
        if draw_count == 0:
            yield None
            return
        if self._values.shape[1:] != shape:
            raise InvalidRequestError(
                f"noise: draws of shape {self._values.shape[1:]}, allowed here is {shape}.",
                param="noise",
            )
        first, self._used = self._used, self._used + draw_count
        if self._used > len(self._values):
            raise InvalidRequestError(
                f"noise: {len(self._values)} draws, allowed for this run are {self._used} or more.",
                param="noise",
                limit=self._used,
            )
        yield _core.NoiseStream.array(self._values[first : self._used])


class FunctionStream(CallersStream):
    """Draws that a function makes when they are needed."""

    def __init__(self, function: NoiseFunction) -> None:
        self._function = function
        self._used = 0

    @contextmanager
    def lend(self, shape: tuple[int, ...], draw_count: int) -> Iterator[_core.NoiseStream]:
        def made(image_count: int, count_per_image: int) -> np.ndarray:
            values = to_float32(self._function(self._used, shape), "noise")
            if values.shape != shape:
                raise InvalidRequestError(
                    f"noise: the function gave shape {values.shape} for draw {self._used}, allowed "
                    f"is {shape}.",
                    param="noise",
                )
            self._used += 1
            return values

        yield _core.NoiseStream.function(made)


class GeneratorStream(CallersStream):
    """Draws of generators: one for the batch, or one per image."""

    def __init__(self, generators: tuple[Any, ...]) -> None:
        self._generators = generators
        self.is_shared = len(generators) == 1

    @contextmanager
    def lend(self, shape: tuple[int, ...], draw_count: int) -> Iterator[_core.NoiseStream]:
        mine = {id(generator) for generator in self._generators}
        with _lock:
            if mine & _lent:
                raise InvalidRequestError(
                    "generator: in use by another call, allowed is one call at a time.",
                    param="generator",
                )
            _lent.update(mine)
        try:
            with self._open() as native:
                yield native
        finally:
            with _lock:
                _lent.difference_update(mine)

    @abstractmethod
    def _open(self) -> AbstractContextManager[_core.NoiseStream]:
        """A context with the native stream."""


class _TorchStream(GeneratorStream):
    """Goes on from the generators' states natively, and sets them when it is done."""

    @contextmanager
    def _open(self) -> Iterator[_core.NoiseStream]:
        distinct = list(dict.fromkeys(self._generators))
        owners = [] if self.is_shared else [distinct.index(one) for one in self._generators]
        states = [one.get_state().numpy().tobytes() for one in distinct]
        native = _DEVICES[_device(distinct[0])](states, owners)
        try:
            yield native
        finally:
            for generator, state in zip(distinct, native.states(), strict=True):
                tensor = generator.get_state()
                tensor.numpy()[:] = np.frombuffer(state, np.uint8)
                generator.set_state(tensor)


class _NumpyStream(GeneratorStream):
    """Asks NumPy for every draw: `randn(*shape)`, as pipelines over NumPy do."""

    @contextmanager
    def _open(self) -> Iterator[_core.NoiseStream]:
        def made(image_count: int, count_per_image: int) -> np.ndarray:
            if self.is_shared:
                rows = [self._generators[0].standard_normal((image_count, count_per_image))]
            else:
                rows = [
                    one.standard_normal((1, count_per_image))
                    for one in self._generators[:image_count]
                ]
            return np.concatenate(rows).astype(np.float32)

        yield _core.NoiseStream.function(made)


def _is_torch(generator: Any) -> bool:
    return all(hasattr(generator, name) for name in ("get_state", "set_state", "device"))


def _device(generator: Any) -> str:
    return str(getattr(generator.device, "type", generator.device))
