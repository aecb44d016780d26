"""How each operator's output measures: one function per kind of operator, used by `Shaper`.

A rule gives a list with one entry per output: the sizes, an array of contents (which has its own
shape), or None. It raises Unknown where an input's rank or a needed number is not known.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx_ir as ir

from .dims import Dim, Dims, Size, floor_div, simpler
from .edit import attribute, constant, content_of, dims_of, input_of

__all__ = ["RULES", "Unknown", "broadcast", "target_of_reshape"]


class Unknown(Exception):
    """The sizes cannot be told."""


Rule = Callable[[ir.Node], list[Any]]
RULES: dict[tuple[str, str], Rule] = {}


def _rule(*op_types: str, domain: str = "") -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        for op_type in op_types:
            RULES[domain, op_type] = function
        return function

    return register


def _dims(node: ir.Node, index: int = 0) -> Dims:
    dims = dims_of(input_of(node, index))
    if dims is None:
        raise Unknown
    return dims


def _content(node: ir.Node, index: int = 0) -> np.ndarray:
    content = content_of(input_of(node, index))
    if content is None:
        raise Unknown
    return content


def _numbers(node: ir.Node, index: int, name: str) -> list[int] | None:
    """Integers given as the attribute `name` (older operator sets) or as an input."""
    if name in node.attributes:
        value = attribute(node, name)
        return [int(value)] if isinstance(value, int) else [int(n) for n in value]
    if input_of(node, index) is None:
        return None
    content = _content(node, index).reshape(-1)
    if any(isinstance(n, Dim) for n in content):
        raise Unknown
    return [int(n) for n in content]


def _product(sizes: Iterable[Size]) -> Size:
    result: Size = 1
    for size in sizes:
        result = result * size
    return result


def broadcast(*shapes: Dims) -> Dims:
    """Sizes of an elementwise result.

    Two different free sizes may be equal, or one of them 1, when the graph runs: that gives a free
    size of its own, which cannot be computed in advance.
    """
    rank = max(map(len, shapes))
    result: list[Size] = []
    for sizes in zip(*((1,) * (rank - len(dims)) + dims for dims in shapes), strict=True):
        several = dict.fromkeys(size for size in sizes if size != 1)
        numbers = [size for size in several if isinstance(size, int)]
        if numbers:
            result.append(numbers[0])  # a free size must equal it, or be 1
        elif len(several) > 1:
            result.append(Dim.symbol(" or ".join(sorted(map(str, several)))))
        else:
            result.append(next(iter(several), 1))
    return tuple(result)


_SAME = (
    "Abs Cast Ceil Clip Cos CumSum Dropout Elu Erf Exp Floor Gelu HardSigmoid Identity "
    "InstanceNormalization GroupNormalization IsInf IsNaN LayerNormalization LeakyRelu Log "
    "LogSoftmax Mish Neg Not QuickGelu Reciprocal Relu Round Selu Sigmoid Sign Sin Softmax "
    "Softplus Sqrt Swish Tanh ThresholdedRelu Trilu BatchNormalization"
).split()


@_rule(*_SAME)
def _same(node: ir.Node) -> list[Any]:
    if node.op_type in ("Identity", "Cast") and content_of(node.inputs[0]) is not None:
        if node.op_type == "Identity" or attribute(node, "to") in (6, 7):
            return [content_of(node.inputs[0])]
    return [_dims(node)]


for _name in ("QuickGelu", "Gelu", "FastGelu", "BiasGelu", "GroupNorm"):
    RULES["com.microsoft", _name] = _same
for _name in ("GroupNorm", "LayerNorm"):
    RULES["ai.textopia", _name] = _same


def _divide(a: Size, b: Size) -> Size:
    if b == 0:
        raise Unknown
    return floor_div(a, b)


_ARITHMETIC = {"Add": operator.add, "Sub": operator.sub, "Mul": operator.mul, "Div": _divide}


@_rule("Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Less", "LessOrEqual", "Greater")
@_rule("GreaterOrEqual", "Equal", "Mod", "Min", "Max", "Mean", "Sum", "PRelu", "Where")
def _elementwise(node: ir.Node) -> list[Any]:
    contents = [content_of(value) for value in node.inputs]
    if all(content is not None for content in contents):
        if node.op_type in _ARITHMETIC:
            combine = np.frompyfunc(_ARITHMETIC[node.op_type], 2, 1)
            return [np.asarray(combine(*contents), dtype=object)]
        if node.op_type == "Equal":
            return [np.asarray(np.frompyfunc(_equal, 2, 1)(*contents), dtype=object)]
        if node.op_type == "Where":
            pick = np.frompyfunc(lambda c, a, b: a if c else b, 3, 1)
            return [np.asarray(pick(*contents), dtype=object)]
    return [broadcast(*(_dims(node, index) for index in range(len(node.inputs))))]


def _equal(a: Size, b: Size) -> bool:
    if a == b:
        return True
    # A free size is at least 0, so that it never equals the -1 of "all the rest".
    if isinstance(a, int) and isinstance(b, int) or min(_least(a), _least(b)) < 0:
        return False
    raise Unknown


def _least(size: Size) -> int:
    return size if isinstance(size, int) else 0


@_rule("Shape")
def _shape(node: ir.Node) -> list[Any]:
    start, end = attribute(node, "start", 0), attribute(node, "end")
    return [_objects(_dims(node)[start:end])]


@_rule("Size")
def _size(node: ir.Node) -> list[Any]:
    result = np.empty((), dtype=object)
    result[()] = _product(_dims(node))
    return [result]


def _objects(sizes: Iterable[Size]) -> np.ndarray:
    listed = list(sizes)
    result = np.empty(len(listed), dtype=object)
    result[:] = listed
    return result


@_rule("Gather")
def _gather(node: ir.Node) -> list[Any]:
    axis = attribute(node, "axis", 0)
    content, index = content_of(node.inputs[0]), content_of(node.inputs[1])
    if content is not None and index is not None and content.ndim:
        picked = np.take(content, _plain(index, content.shape[axis]), axis=axis)
        return [np.asarray(picked, dtype=object)]
    dims = _dims(node)
    axis %= len(dims)
    return [dims[:axis] + _dims(node, 1) + dims[axis + 1 :]]


def _plain(index: np.ndarray, limit: int) -> np.ndarray:
    if any(isinstance(i, Dim) or not -limit <= i < limit for i in index.reshape(-1)):
        raise Unknown
    return index.astype(np.int64)


@_rule("Concat")
def _concat(node: ir.Node) -> list[Any]:
    axis = attribute(node, "axis", 0)
    contents = [content_of(value) for value in node.inputs]
    if axis == 0 and all(content is not None and content.ndim == 1 for content in contents):
        return [np.concatenate([content for content in contents if content is not None])]
    shapes = [_dims(node, index) for index in range(len(node.inputs))]
    axis %= len(shapes[0])
    result = list(shapes[0])
    for dims in shapes[1:]:
        if len(dims) != len(result):
            raise Unknown
        # Along the other axes the sizes must agree, so that the simpler way to write one is taken.
        result = [
            result[i] + size if i == axis else simpler(result[i], size)
            for i, size in enumerate(dims)
        ]
    return [tuple(result)]


@_rule("Slice")
def _slice(node: ir.Node) -> list[Any]:
    dims = _dims(node)
    starts, ends = _numbers_or_dims(node, 1, "starts"), _numbers_or_dims(node, 2, "ends")
    axes = _numbers(node, 3, "axes") or list(range(len(starts)))
    steps = _numbers(node, 4, "steps") or [1] * len(axes)
    content = content_of(node.inputs[0])
    if content is not None and content.ndim == 1 and not _any_dim(starts, ends):
        return [content[slice(int(starts[0]), int(ends[0]), steps[0])]]
    result = list(dims)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        result[axis] = _sliced(dims[axis], start, end, step)
    return [tuple(result)]


def _numbers_or_dims(node: ir.Node, index: int, name: str) -> list[Size]:
    if name in node.attributes:
        return [int(n) for n in attribute(node, name)]
    return [n if isinstance(n, Dim) else int(n) for n in _content(node, index).reshape(-1)]


def _any_dim(*lists: list[Size]) -> bool:
    return any(isinstance(n, Dim) for numbers in lists for n in numbers)


def _sliced(size: Size, start: Size, end: Size, step: int) -> Size:
    if not _any_dim([size, start, end]):
        return len(range(*slice(start, end, step).indices(size)))  # type: ignore[misc]
    if start == 0 and step == 1 and (end == size or (isinstance(end, int) and end >= 2**31 - 1)):
        return size
    if start == 0 and step == 1 and isinstance(size, int) and isinstance(end, Dim):
        return end  # a table cut to a free size, which must fit
    raise Unknown


@_rule("Split")
def _split(node: ir.Node) -> list[Any]:
    dims = _dims(node)
    axis = attribute(node, "axis", 0) % len(dims)
    sizes: list[Size] | None = _numbers(node, 1, "split")  # type: ignore[assignment]
    if sizes is None:
        size, count = dims[axis], len(node.outputs)
        if not isinstance(size, int):
            raise Unknown
        part = -(-size // count)
        sizes = [min(part, size - part * index) for index in range(count)]
    return [dims[:axis] + (size,) + dims[axis + 1 :] for size in sizes]


@_rule("Unsqueeze")
def _unsqueeze(node: ir.Node) -> list[Any]:
    axes = _numbers(node, 1, "axes") or []
    content = content_of(node.inputs[0])
    if content is not None and content.ndim + len(axes) <= 1:
        return [content.reshape((1,) * len(axes) + content.shape)]
    dims = _dims(node)
    rank = len(dims) + len(axes)
    inserted = {axis % rank for axis in axes}
    rest = iter(dims)
    return [tuple(1 if axis in inserted else next(rest) for axis in range(rank))]


@_rule("Squeeze")
def _squeeze(node: ir.Node) -> list[Any]:
    dims = _dims(node)
    axes = _numbers(node, 1, "axes")
    if axes is None:
        axes = [axis for axis, size in enumerate(dims) if size == 1]
    removed = {axis % len(dims) for axis in axes}
    content = content_of(node.inputs[0])
    left = tuple(size for axis, size in enumerate(dims) if axis not in removed)
    return [left if content is None else content.reshape(left)]


def target_of_reshape(node: ir.Node) -> Dims:
    """Sizes that a Reshape asks for, with 0 and -1 worked out."""
    dims = _dims(node)
    wanted = _numbers_or_dims(node, 1, "shape")
    if not attribute(node, "allowzero", 0):
        wanted = [dims[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    if -1 in wanted:
        rest = _product(size for size in wanted if size != -1)
        if rest == 0:
            raise Unknown
        filled = floor_div(_product(dims), rest)
        wanted = [filled if size == -1 else size for size in wanted]
    free = [axis for axis, size in enumerate(wanted) if isinstance(size, Dim) and size not in dims]
    if len(free) == 1:
        # No element is lost, so that the other sizes tell this one; maybe more simply.
        others = _product(size for axis, size in enumerate(wanted) if axis != free[0])
        told = floor_div(_product(dims), others) if others != 0 else wanted[free[0]]
        wanted[free[0]] = simpler(wanted[free[0]], told)
    return tuple(wanted)


@_rule("Reshape")
def _reshape(node: ir.Node) -> list[Any]:
    target = target_of_reshape(node)
    content = content_of(node.inputs[0])
    if content is not None and not _any_dim(list(target)):
        return [content.reshape(target)]
    return [target]


@_rule("Flatten")
def _flatten(node: ir.Node) -> list[Any]:
    dims = _dims(node)
    axis = attribute(node, "axis", 1)
    axis = axis + len(dims) if axis < 0 else axis
    return [(_product(dims[:axis]), _product(dims[axis:]))]


@_rule("Transpose")
def _transpose(node: ir.Node) -> list[Any]:
    dims = _dims(node)
    order = attribute(node, "perm") or range(len(dims))[::-1]
    return [tuple(dims[axis] for axis in order)]


@_rule("Expand")
def _expand(node: ir.Node) -> list[Any]:
    # Expanding a free size to another one means that the first is 1, or the same.
    dims, target = _dims(node), tuple(_numbers_or_dims(node, 1, "shape"))
    rank = max(len(dims), len(target))
    dims, target = (((1,) * (rank - len(sizes)) + sizes) for sizes in (dims, target))
    return [tuple(a if b == 1 else b for a, b in zip(dims, target, strict=True))]


@_rule("ConstantOfShape")
def _constant_of_shape(node: ir.Node) -> list[Any]:
    target = tuple(_numbers_or_dims(node, 0, ""))
    tensor = attribute(node, "value")
    is_integer = tensor is not None and tensor.dtype == ir.DataType.INT64
    if is_integer and not _any_dim(list(target)) and math.prod(target) <= 64:  # type: ignore[arg-type]
        result = np.empty(target, dtype=object)  # type: ignore[arg-type]
        result[...] = int(tensor.numpy().reshape(-1)[0])
        return [result]
    return [target]


@_rule("Tile")
def _tile(node: ir.Node) -> list[Any]:
    repeats = _numbers_or_dims(node, 1, "")
    return [tuple(a * b for a, b in zip(_dims(node), repeats, strict=True))]


@_rule("Range")
def _range(node: ir.Node) -> list[Any]:
    start, limit, step = (_content(node, index).reshape(()).item() for index in range(3))
    if step == 1:
        return [(limit - start,)]
    raise Unknown


@_rule("Pad")
def _pad(node: ir.Node) -> list[Any]:
    dims = _dims(node)
    pads = _numbers(node, 1, "pads") or []
    axes = _numbers(node, 3, "") or list(range(len(dims)))
    result = list(dims)
    for index, axis in enumerate(axes):
        result[axis] = result[axis] + pads[index] + pads[index + len(axes)]
    return [tuple(result)]


@_rule("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2", "ArgMax")
def _reduce(node: ir.Node) -> list[Any]:
    dims = _dims(node)
    if node.op_type == "ArgMax":
        axes: list[int] | None = [attribute(node, "axis", 0)]
    else:
        axes = _numbers(node, 1, "axes")
    reduced = {axis % len(dims) for axis in (range(len(dims)) if axes is None else axes)}
    keep = attribute(node, "keepdims", 1)
    kept = (1 if axis in reduced else size for axis, size in enumerate(dims))
    return [tuple(s for axis, s in enumerate(kept) if keep or axis not in reduced)]


@_rule("MatMul")
def _matmul(node: ir.Node) -> list[Any]:
    a, b = _dims(node, 0), _dims(node, 1)
    if len(a) < 2 or len(b) < 2:
        raise Unknown
    return [(*broadcast(a[:-2], b[:-2]), a[-2], b[-1])]


@_rule("Einsum")
def _einsum(node: ir.Node) -> list[Any]:
    inputs, arrow, output = attribute(node, "equation").replace(" ", "").partition("->")
    if not arrow or "." in inputs:
        raise Unknown
    sizes: dict[str, Size] = {}
    for index, letters in enumerate(inputs.split(",")):
        for letter, size in zip(letters, _dims(node, index), strict=True):
            sizes[letter] = simpler(sizes.get(letter, size), size)
    return [tuple(sizes[letter] for letter in output)]


@_rule("Gemm")
def _gemm(node: ir.Node) -> list[Any]:
    a, b = _dims(node, 0), _dims(node, 1)
    rows = a[1] if attribute(node, "transA", 0) else a[0]
    return [(rows, b[0] if attribute(node, "transB", 0) else b[1])]


@_rule("Conv")
def _conv(node: ir.Node) -> list[Any]:
    dims, weight = _dims(node, 0), _dims(node, 1)
    space = len(dims) - 2
    pads = attribute(node, "pads") or [0] * (2 * space)
    if attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise Unknown
    strides = attribute(node, "strides") or [1] * space
    dilations = attribute(node, "dilations") or [1] * space
    result: list[Size] = [dims[0], weight[0]]
    for axis in range(space):
        reach = dilations[axis] * (weight[axis + 2] - 1)  # type: ignore[operator]
        free = dims[axis + 2] + (pads[axis] + pads[axis + space] - reach - 1)
        result.append(floor_div(free, strides[axis]) + 1)
    return [tuple(result)]


@_rule("Resize", "Upsample")
def _resize(node: ir.Node) -> list[Any]:
    dims = _dims(node)
    sizes = content_of(input_of(node, 3))
    if sizes is not None:
        axes = attribute(node, "axes") or range(len(dims))
        result = list(dims)
        for axis, size in zip(axes, sizes, strict=True):
            result[axis] = size if isinstance(size, Dim) else int(size)
        return [tuple(result)]
    scales = constant(input_of(node, 1 if node.op_type == "Upsample" else 2))
    if scales is None or scales.size != len(dims) or (scales.numpy() % 1).any():
        raise Unknown
    return [tuple(size * int(n) for size, n in zip(dims, scales.numpy(), strict=True))]


@_rule("Attention")
def _attention(node: ir.Node) -> list[Any]:
    dims, values = _dims(node, 0), _dims(node, 2)
    if len(dims) == 4:
        return [(*dims[:-1], values[-1])]
    width = floor_div(values[-1], attribute(node, "kv_num_heads"))
    return [(*dims[:-1], width * attribute(node, "q_num_heads"))]


# --- operators of our own domain


@_rule("Conv", domain="ai.textopia")
def _fused_conv(node: ir.Node) -> list[Any]:
    batch, height, width, _ = _dims(node)
    if attribute(node, "upsample", 0):
        height, width = height * 2, width * 2
    elif attribute(node, "stride") == 2:
        pad = 1 if attribute(node, "asymmetric_pad", 0) else 2
        reach = attribute(node, "kernel") - (pad if attribute(node, "kernel") == 3 else 0)
        height = floor_div(height - reach, 2) + 1
        width = floor_div(width - reach, 2) + 1
    return [(batch, height, width, attribute(node, "out_channels"))]


@_rule("Linear", "LinearGeglu", domain="ai.textopia")
def _fused_linear(node: ir.Node) -> list[Any]:
    return [(*_dims(node)[:-1], attribute(node, "out_features"))]


@_rule("Attention", domain="ai.textopia")
def _fused_attention(node: ir.Node) -> list[Any]:
    dims = _dims(node)
    packed = 3 if input_of(node, 1) is None else 1
    return [(*dims[:-1], floor_div(dims[-1], packed))]
