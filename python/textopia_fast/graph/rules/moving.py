"""Shapes of elementwise operators, and of those that move elements or compute sizes."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx_ir as ir

from ..dims import Dim, Dims, Size, floor_div, numbers, simpler
from ..edit import MAX_CONTENT, attribute, content_of
from .table import (
    RULES,
    UnknownSizeError,
    axis_in,
    broadcast,
    content_in,
    dims_in,
    is_free,
    numbers_in,
    product,
    rule,
    sizes_in,
)

__all__ = ["target_of_reshape"]

_SAME = (
    "Abs",
    "Cast",
    "Ceil",
    "Clip",
    "Cos",
    "CumSum",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "Identity",
    "InstanceNormalization",
    "GroupNormalization",
    "IsInf",
    "IsNaN",
    "LayerNormalization",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "Mish",
    "Neg",
    "Not",
    "QuickGelu",
    "Reciprocal",
    "Relu",
    "Round",
    "Selu",
    "Sigmoid",
    "Sign",
    "Sin",
    "Softmax",
    "Softplus",
    "Sqrt",
    "Swish",
    "Tanh",
    "ThresholdedRelu",
    "Trilu",
    "BatchNormalization",
)


@rule(*_SAME)
def _same(node: ir.Node) -> list[Any]:
    keeps = node.op_type == "Identity" or attribute(node, "to") in (6, 7)  # int32, int64
    content = content_of(node.inputs[0])
    if node.op_type in ("Identity", "Cast") and keeps and content is not None:
        return [content]
    return [dims_in(node)]


for _name in ("QuickGelu", "Gelu", "FastGelu", "BiasGelu", "GroupNorm"):
    RULES["com.microsoft", _name] = _same
for _name in ("GroupNorm", "LayerNorm"):
    RULES["ai.textopia", _name] = _same


_MAX_NUMBER = 2**62


def _divide(a: Size, b: Size) -> Size:
    if b == 0 or min(_least(a), _least(b)) < 0:  # negative numbers are rounded towards 0
        raise UnknownSizeError
    return floor_div(a, b)


@rule("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Less", "LessOrEqual", "Greater")
@rule("GreaterOrEqual", "Equal", "Mod", "Min", "Max", "Mean", "Sum", "PRelu", "Where")
def _elementwise(node: ir.Node) -> list[Any]:
    contents = [found for value in node.inputs if (found := content_of(value)) is not None]
    combine = _COMBINE.get(node.op_type)
    if combine is not None and len(contents) == len(node.inputs):
        combined: Any = np.frompyfunc(combine, len(contents), 1)(*contents)
        result = np.asarray(combined, dtype=object)
        if any(isinstance(n, int) and abs(n) > _MAX_NUMBER for n in result.reshape(-1)):
            raise UnknownSizeError
        return [result]
    return [broadcast(*(dims_in(node, index) for index in range(len(node.inputs))))]


def _equal(a: Size, b: Size) -> bool:
    if a == b:
        return True
    # A free size is at least 0, so that it never equals the -1 of "all the rest".
    if (isinstance(a, int) and isinstance(b, int)) or min(_least(a), _least(b)) < 0:
        return False
    raise UnknownSizeError


def _least(size: Size) -> int:
    return size if isinstance(size, int) else 0


_COMBINE: dict[str, Callable[..., Any]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    "Div": _divide,
    "Equal": _equal,
    "Where": lambda condition, a, b: a if condition else b,
}


@rule("Shape")
def _shape(node: ir.Node) -> list[Any]:
    start, end = attribute(node, "start", 0), attribute(node, "end")
    return [objects(dims_in(node)[start:end])]


@rule("Size")
def _size(node: ir.Node) -> list[Any]:
    result = np.empty((), dtype=object)
    result[()] = product(dims_in(node))
    return [result]


def objects(sizes: Iterable[Size]) -> np.ndarray:
    listed = list(sizes)
    result = np.empty(len(listed), dtype=object)
    result[:] = listed
    return result


@rule("Gather")
def _gather(node: ir.Node) -> list[Any]:
    axis = attribute(node, "axis", 0)
    content, index = content_of(node.inputs[0]), content_of(node.inputs[1])
    if content is not None and index is not None and content.ndim:
        picked = np.take(content, _plain(index, content.shape[axis]), axis=axis)
        return [np.asarray(picked, dtype=object)]
    dims = dims_in(node)
    axis = axis_in(axis, len(dims))
    return [dims[:axis] + dims_in(node, 1) + dims[axis + 1 :]]


def _plain(index: np.ndarray, limit: int) -> np.ndarray:
    if any(isinstance(i, Dim) or not -limit <= i < limit for i in index.reshape(-1)):
        raise UnknownSizeError
    return index.astype(np.int64)


@rule("Concat")
def _concat(node: ir.Node) -> list[Any]:
    axis = attribute(node, "axis", 0)
    contents = [content_of(value) for value in node.inputs]
    if axis == 0 and all(content is not None and content.ndim == 1 for content in contents):
        return [np.concatenate([content for content in contents if content is not None])]
    shapes = [dims_in(node, index) for index in range(len(node.inputs))]
    axis = axis_in(axis, len(shapes[0]))
    result = list(shapes[0])
    for dims in shapes[1:]:
        if len(dims) != len(result):
            raise UnknownSizeError
        # Along the other axes the sizes must agree, so that the simpler way to write one is taken.
        result = [
            result[i] + size if i == axis else simpler(result[i], size)
            for i, size in enumerate(dims)
        ]
    return [tuple(result)]


@rule("Slice")
def _slice(node: ir.Node) -> list[Any]:
    dims = dims_in(node)
    starts, ends = sizes_in(node, 1, "starts"), sizes_in(node, 2, "ends")
    axes = numbers_in(node, 3, "axes") or list(range(len(starts)))
    steps = numbers_in(node, 4, "steps") or [1] * len(axes)
    content = content_of(node.inputs[0])
    begin, end = starts[0], ends[0]
    is_known = isinstance(begin, int) and isinstance(end, int)
    if content is not None and content.ndim == 1 and is_known:
        return [content[begin : end : steps[0]]]
    result = list(dims)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = axis_in(axis, len(dims))
        result[axis] = _sliced(dims[axis], start, end, step)
    return [tuple(result)]


def _sliced(size: Size, start: Size, end: Size, step: int) -> Size:
    if isinstance(size, int) and isinstance(start, int) and isinstance(end, int):
        return len(range(*slice(start, end, step).indices(size)))
    if start == 0 and step == 1 and (end == size or (isinstance(end, int) and end >= 2**31 - 1)):
        return size
    if start == 0 and step == 1 and isinstance(size, int) and isinstance(end, Dim):
        return end  # a table cut to a free size, which must fit
    raise UnknownSizeError


@rule("Split")
def _split(node: ir.Node) -> list[Any]:
    dims = dims_in(node)
    axis = axis_in(attribute(node, "axis", 0), len(dims))
    sizes = numbers_in(node, 1, "split")
    if sizes is None:
        size, count = dims[axis], len(node.outputs)
        if not isinstance(size, int):
            raise UnknownSizeError
        whole = -(-size // count)
        sizes = [min(whole, size - whole * index) for index in range(count)]
    return [(*dims[:axis], part, *dims[axis + 1 :]) for part in sizes]


@rule("Unsqueeze")
def _unsqueeze(node: ir.Node) -> list[Any]:
    axes = numbers_in(node, 1, "axes") or []
    content = content_of(node.inputs[0])
    if content is not None and content.ndim + len(axes) <= 1:
        return [content.reshape((1,) * len(axes) + content.shape)]
    dims = dims_in(node)
    rank = len(dims) + len(axes)
    inserted = {axis_in(axis, rank) for axis in axes}
    rest = iter(dims)
    return [tuple(1 if axis in inserted else next(rest) for axis in range(rank))]


@rule("Squeeze")
def _squeeze(node: ir.Node) -> list[Any]:
    dims = dims_in(node)
    axes = numbers_in(node, 1, "axes")
    if axes is None:
        axes = [axis for axis, size in enumerate(dims) if size == 1]
    removed = {axis_in(axis, len(dims)) for axis in axes}
    content = content_of(node.inputs[0])
    left = tuple(size for axis, size in enumerate(dims) if axis not in removed)
    return [left if content is None else content.reshape(left)]


def target_of_reshape(node: ir.Node) -> Dims:
    """Sizes that a Reshape asks for, with 0 and -1 worked out."""
    dims = dims_in(node)
    wanted = sizes_in(node, 1, "shape")
    if not attribute(node, "allowzero", 0):
        wanted = [dims[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    if -1 in wanted:
        rest = product(size for size in wanted if size != -1)
        if rest == 0:
            raise UnknownSizeError
        filled = floor_div(product(dims), rest)
        wanted = [filled if size == -1 else size for size in wanted]
    free = [axis for axis, size in enumerate(wanted) if isinstance(size, Dim) and size not in dims]
    if len(free) == 1:
        # No element is lost, so that the other sizes tell this one; maybe more simply.
        others = product(size for axis, size in enumerate(wanted) if axis != free[0])
        told = floor_div(product(dims), others) if others != 0 else wanted[free[0]]
        wanted[free[0]] = simpler(wanted[free[0]], told)
    return tuple(wanted)


@rule("Reshape")
def _reshape(node: ir.Node) -> list[Any]:
    target = target_of_reshape(node)
    content = content_of(node.inputs[0])
    if content is not None and not is_free(list(target)):
        return [content.reshape(target)]
    return [target]


@rule("Flatten")
def _flatten(node: ir.Node) -> list[Any]:
    dims = dims_in(node)
    axis = attribute(node, "axis", 1)
    axis = axis + len(dims) if axis < 0 else axis
    return [(product(dims[:axis]), product(dims[axis:]))]


@rule("Transpose")
def _transpose(node: ir.Node) -> list[Any]:
    dims = dims_in(node)
    order = attribute(node, "perm") or range(len(dims))[::-1]
    return [tuple(dims[axis] for axis in order)]


@rule("Expand")
def _expand(node: ir.Node) -> list[Any]:
    # Expanding a free size to another one means that the first is 1, or the same.
    dims, target = dims_in(node), tuple(sizes_in(node, 1, "shape"))
    rank = max(len(dims), len(target))
    dims, target = (((1,) * (rank - len(sizes)) + sizes) for sizes in (dims, target))
    return [tuple(a if b == 1 else b for a, b in zip(dims, target, strict=True))]


@rule("ConstantOfShape")
def _constant_of_shape(node: ir.Node) -> list[Any]:
    target = tuple(sizes_in(node, 0, ""))
    tensor, sizes = attribute(node, "value"), numbers(target)
    is_integer = tensor is not None and tensor.dtype == ir.DataType.INT64
    if is_integer and sizes is not None and math.prod(sizes) <= MAX_CONTENT:
        return [np.full(sizes, int(tensor.numpy().reshape(-1)[0]), dtype=object)]
    return [target]


@rule("Tile")
def _tile(node: ir.Node) -> list[Any]:
    repeats = sizes_in(node, 1, "")
    return [tuple(a * b for a, b in zip(dims_in(node), repeats, strict=True))]


@rule("Range")
def _range(node: ir.Node) -> list[Any]:
    start, limit, step = (content_in(node, index).reshape(()).item() for index in range(3))
    if step == 1:
        return [(limit - start,)]
    raise UnknownSizeError


@rule("Pad")
def _pad(node: ir.Node) -> list[Any]:
    dims = dims_in(node)
    pads = numbers_in(node, 1, "pads") or []
    axes = numbers_in(node, 3, "") or list(range(len(dims)))
    result = list(dims)
    for index, axis in enumerate(axes):
        result[axis] = result[axis] + pads[index] + pads[index + len(axes)]
    return [tuple(result)]
