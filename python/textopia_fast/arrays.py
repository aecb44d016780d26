"""Arrays at the border: whatever speaks DLPack or the buffer protocol on the CPU comes in."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from .errors import InvalidRequestError

__all__ = ["as_used", "like", "to_array", "to_float32"]


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


def as_used(array: np.ndarray) -> Any:
    """`array` as a torch tensor (same memory) in a program that uses torch, else as it is."""
    torch = sys.modules.get("torch")
    return array if torch is None else torch.from_numpy(array)


def like(result: np.ndarray, model: Any) -> Any:
    """`result` as a torch tensor when `model` is one, else as it is."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(model, torch.Tensor):
        return torch.from_dlpack(result)
    return result
