"""Shapes of operators that compute: products, convolutions, sums, the fused ones."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from ..dims import Dim, Size, floor_div, numbers, simpler
from ..edit import attribute, constant, content_of, input_of
from .table import UnknownSizeError, axis_in, broadcast, dims_in, numbers_in, rule


@rule("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL2", "ArgMax")
def _reduce(node: ir.Node) -> list[Any]:
    dims = dims_in(node)
    if node.op_type == "ArgMax":
        axes: list[int] | None = [attribute(node, "axis", 0)]
    else:
        axes = numbers_in(node, 1, "axes")
    reduced = {axis_in(axis, len(dims)) for axis in (range(len(dims)) if axes is None else axes)}
    keep = attribute(node, "keepdims", 1)
    kept = (1 if axis in reduced else size for axis, size in enumerate(dims))
    return [tuple(s for axis, s in enumerate(kept) if keep or axis not in reduced)]


@rule("MatMul")
def _matmul(node: ir.Node) -> list[Any]:
    a, b = dims_in(node, 0), dims_in(node, 1)
    if len(a) < 2 or len(b) < 2:
        raise UnknownSizeError
    return [(*broadcast(a[:-2], b[:-2]), a[-2], b[-1])]


@rule("Einsum")
def _einsum(node: ir.Node) -> list[Any]:
    inputs, arrow, output = attribute(node, "equation").replace(" ", "").partition("->")
    if not arrow or "." in inputs:
        raise UnknownSizeError
    sizes: dict[str, Size] = {}
    for index, letters in enumerate(inputs.split(",")):
        for letter, size in zip(letters, dims_in(node, index), strict=True):
            sizes[letter] = simpler(sizes.get(letter, size), size)
    return [tuple(sizes[letter] for letter in output)]


@rule("Gemm")
def _gemm(node: ir.Node) -> list[Any]:
    a, b = dims_in(node, 0), dims_in(node, 1)
    rows = a[1] if attribute(node, "transA", 0) else a[0]
    return [(rows, b[0] if attribute(node, "transB", 0) else b[1])]


@rule("Conv")
def _conv(node: ir.Node) -> list[Any]:
    dims, weight = dims_in(node, 0), dims_in(node, 1)
    space = len(dims) - 2
    pads = attribute(node, "pads") or [0] * (2 * space)
    if attribute(node, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        raise UnknownSizeError
    kernel = numbers(weight[2:])
    if kernel is None or len(kernel) != space:
        raise UnknownSizeError
    strides = attribute(node, "strides") or [1] * space
    dilations = attribute(node, "dilations") or [1] * space
    result: list[Size] = [dims[0], weight[0]]
    for axis in range(space):
        reach = dilations[axis] * (kernel[axis] - 1)
        free = dims[axis + 2] + (pads[axis] + pads[axis + space] - reach - 1)
        result.append(floor_div(free, strides[axis]) + 1)
    return [tuple(result)]


@rule("Resize", "Upsample")
def _resize(node: ir.Node) -> list[Any]:
    dims = dims_in(node)
    sizes = content_of(input_of(node, 3))
    if sizes is not None:
        axes = attribute(node, "axes") or range(len(dims))
        result = list(dims)
        for axis, size in zip(axes, sizes, strict=True):
            result[axis] = size if isinstance(size, Dim) else int(size)
        return [tuple(result)]
    scales = constant(input_of(node, 1 if node.op_type == "Upsample" else 2))
    if scales is None or scales.size != len(dims) or (scales.numpy() % 1).any():
        raise UnknownSizeError
    return [tuple(size * int(n) for size, n in zip(dims, scales.numpy(), strict=True))]


@rule("Attention")
def _attention(node: ir.Node) -> list[Any]:
    dims, values = dims_in(node, 0), dims_in(node, 2)
    if len(dims) == 4:
        return [(*dims[:-1], values[-1])]
    width = floor_div(values[-1], attribute(node, "kv_num_heads"))
    return [(*dims[:-1], width * attribute(node, "q_num_heads"))]


# --- operators of our own domain


@rule("Conv", domain="ai.textopia")
def _fused_conv(node: ir.Node) -> list[Any]:
    batch, height, width, _ = dims_in(node)
    if attribute(node, "upsample", 0):
        height, width = height * 2, width * 2
    elif attribute(node, "stride") == 2:
        pad = 1 if attribute(node, "asymmetric_pad", 0) else 2
        reach = attribute(node, "kernel") - (pad if attribute(node, "kernel") == 3 else 0)
        height = floor_div(height - reach, 2) + 1
        width = floor_div(width - reach, 2) + 1
    return [(batch, height, width, attribute(node, "out_channels"))]


@rule("Linear", "LinearGeglu", domain="ai.textopia")
def _fused_linear(node: ir.Node) -> list[Any]:
    return [(*dims_in(node)[:-1], attribute(node, "out_features"))]


@rule("Attention", domain="ai.textopia")
def _fused_attention(node: ir.Node) -> list[Any]:
    dims = dims_in(node)
    packed = 3 if input_of(node, 1) is None else 1
    return [(*dims[:-1], floor_div(dims[-1], packed))]


@rule("Geglu", domain="ai.textopia")
def _geglu(node: ir.Node) -> list[Any]:
    dims = dims_in(node)
    return [(*dims[:-1], floor_div(dims[-1], 2))]
