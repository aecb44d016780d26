"""Weights that are read, turned and packed when the engine is written: never all in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from .edit import stored_sizes

__all__ = ["depth_of", "derived", "float32"]


def derived(
    sources: Sequence[ir.TensorProtocol],
    shape: Sequence[int],
    make: Callable[..., np.ndarray],
    dtype: ir.DataType = ir.DataType.FLOAT,
) -> ir.LazyTensor:
    """A tensor that is `make(*arrays of sources)`, computed each time it is asked for."""

    def compute() -> ir.TensorProtocol:
        array = np.ascontiguousarray(make(*(source.numpy() for source in sources)))
        return ir.Tensor(array, dtype=dtype)

    made = ir.LazyTensor(compute, dtype=dtype, shape=ir.Shape(shape))
    made.meta["depth"] = 1 + max(map(depth_of, sources))
    return made


def depth_of(tensor: ir.TensorProtocol) -> int:
    """How many tensors stand between this one and a file."""
    return int(tensor.meta.get("depth", 0))


def float32(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """`tensor` in float32."""
    if tensor.dtype == ir.DataType.FLOAT:
        return tensor
    return derived([tensor], stored_sizes(tensor), lambda array: array.astype(np.float32))
