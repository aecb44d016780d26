"""Arrays at the border: whatever speaks DLPack comes in, and on the CPU the buffer protocol, too.

Arrays on a GPU stay there: they go to a loop on that GPU, and are never copied to the CPU unseen.
"""

from __future__ import annotations

import sys
from typing import Any, NoReturn

import numpy as np

from . import _core
from .errors import InvalidRequestError

__all__ = [
    "FLOATS",
    "Array",
    "as_used",
    "is_on_gpu",
    "like",
    "to_array",
    "to_device",
    "to_float32",
    "to_host",
]

Array = np.ndarray | _core.DeviceArray
FLOATS = ("float32", "float16", "bfloat16")
"""Element types that a GPU converts into each other."""

is_on_gpu = _core.is_on_gpu


def to_float32(value: Any, name: str) -> np.ndarray:
    """A C-contiguous float32 view of `value`, copied only when its dtype or layout differs.

    Raises:
        InvalidRequestError: `value` is no array on the CPU, or is not numeric.
    """
    array = to_array(value, name)
    if array.dtype.kind not in "fiu":
        raise InvalidRequestError(
            f"{name}: dtype {array.dtype}, allowed are real numbers.", param=name
        )
    return np.asarray(array, dtype=np.float32, order="C")


def to_array(value: Any, name: str) -> np.ndarray:
    """`value` as a NumPy array, without a copy where the protocols allow it.

    Raises:
        InvalidRequestError: `value` is no array on the CPU.
    """
    if isinstance(value, np.ndarray):
        return value
    if is_on_gpu(value):
        _refuse_gpu(name)
    if hasattr(value, "detach"):
        value = value.detach()  # a torch tensor that requires grad does not export itself
    try:
        return np.from_dlpack(value) if hasattr(value, "__dlpack__") else np.asarray(value)
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise InvalidRequestError(
            f"{name}: got {type(value).__name__}, allowed are arrays on the CPU.",
            param=name,
            cause=str(error),
        ) from error


def to_device(
    value: Any, name: str, gpu: _core.Gpu | None, dtype: str | None = None, scale: float = 1.0
) -> _core.DeviceArray:
    """An array of that GPU, without a copy where its dtype is `dtype` (None: any) and `scale` 1.

    Its library is told our stream, which then waits for whatever still writes the array.

    Raises:
        InvalidRequestError: `gpu` is None or another one, or the array is not contiguous or of
            another kind of numbers.
    """
    if gpu is None:
        _refuse_gpu(name)
    if hasattr(value, "detach"):
        value = value.detach()
    if hasattr(value, "contiguous"):
        value = value.contiguous()  # of torch, on its own stream
    array = _core.DeviceArray(gpu, value, name)
    if dtype is None:
        return array
    if array.dtype not in FLOATS:
        raise InvalidRequestError(
            f"{name}: dtype {array.dtype} on {array.device}, allowed are {', '.join(FLOATS)}.",
            param=name,
        )
    return array.astype(dtype, scale)


def _refuse_gpu(name: str) -> NoReturn:
    raise InvalidRequestError(
        f"{name}: an array on a GPU, allowed here are arrays on the CPU.",
        hint='torch: x.cpu(); CuPy: x.get(). A loop on a GPU (device="cuda") takes the start, the '
        "conditioning and the embeddings where they are.",
        param=name,
    )


def to_host(array: Array) -> np.ndarray:
    """A copy on the CPU of an array that is on a GPU; others as they are."""
    return array if isinstance(array, np.ndarray) else array.numpy()


def as_used(array: np.ndarray) -> Any:
    """`array` as a torch tensor (same memory) in a program that uses torch, else as it is."""
    torch = sys.modules.get("torch")
    return array if torch is None else torch.from_numpy(array)


def like(result: Array, model: Any) -> Any:
    """`result` as an array of `model`'s library, where that is torch or `result` is on a GPU."""
    torch = sys.modules.get("torch")
    if isinstance(result, _core.DeviceArray) and not is_on_gpu(model):
        return result
    if torch is not None and isinstance(model, torch.Tensor):
        return torch.from_dlpack(result)
    if isinstance(result, _core.DeviceArray) and hasattr(model, "__array_namespace__"):
        return model.__array_namespace__().from_dlpack(result)
    return result
