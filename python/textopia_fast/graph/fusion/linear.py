"""Linear layers: MatMul with a stored matrix, Gemm, with their bias; GEGLU: a layer and a gate."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from ..dims import Dim, numbers
from ..edit import (
    DOMAIN,
    Editor,
    attribute,
    constant,
    content_of,
    dims_of,
    input_of,
    is_op,
    only_user,
    small_array,
    stored_sizes,
    users,
)
from ..weights import derived, float32
from .activations import INTERNAL

__all__ = ["fuse", "fuse_geglu", "pack_shared"]


def fuse(editor: Editor) -> None:
    """Finds linear layers."""
    for node in tuple(editor.graph):
        if is_op(node, "MatMul"):
            _matmul(editor, node)
        elif is_op(node, "Gemm"):
            _gemm(editor, node)
    editor.prune()


def _matmul(editor: Editor, node: ir.Node) -> None:
    weight, dims = constant(node.inputs[1]), dims_of(node.inputs[0])
    if weight is None or len(weight.shape) != 2 or dims is None or len(dims) < 2:
        return
    before, result, bias = node, node.outputs[0], None
    add = only_user(result, "Add")
    if add is not None:
        other = add.inputs[1] if add.inputs[0] is result else add.inputs[0]
        bias = bias_of(other, stored_sizes(weight)[1])
        if bias is not None and dims_of(add.outputs[0]) == dims_of(result):
            before, result = add, add.outputs[0]
        else:
            bias = None
    _put(editor, before, node.inputs[0], weight, bias, result, is_transposed=False)


def _gemm(editor: Editor, node: ir.Node) -> None:
    weight = constant(node.inputs[1])
    is_plain = attribute(node, "alpha", 1.0) == 1.0 and not attribute(node, "transA", 0)
    if weight is None or not is_plain or dims_of(node.inputs[0]) is None:
        return
    is_transposed = bool(attribute(node, "transB", 0))
    bias = None
    if input_of(node, 2) is not None:
        bias = bias_of(node.inputs[2], stored_sizes(weight)[0 if is_transposed else 1])
        if bias is None or attribute(node, "beta", 1.0) != 1.0:
            return
    _put(editor, node, node.inputs[0], weight, bias, node.outputs[0], is_transposed)


def bias_of(value: ir.Value | None, count: int) -> np.ndarray | None:
    """A stored vector of `count` numbers along the last axis."""
    array = small_array(value)
    if array is None or array.size != count or (array.ndim and array.shape[-1] != count):
        return None
    return array.reshape(-1).astype(np.float32)


def _put(
    editor: Editor,
    before: ir.Node,
    x: ir.Value | None,
    weight: ir.TensorProtocol,
    bias: np.ndarray | None,
    result: ir.Value,
    is_transposed: bool,
) -> None:
    rows, columns = stored_sizes(weight)
    plain = float32(weight)
    if not is_transposed:
        rows, columns = columns, rows
        plain = derived([weight], (rows, columns), lambda w: w.astype(np.float32).T)
    fused = editor.fused(
        before,
        "Linear",
        x,
        editor.store(plain, "weight"),
        None if bias is None else editor.store(bias, "bias"),
        in_features=columns,
        out_features=rows,
        activation="",
        weight_format="plain",
    )
    editor.replace(result, fused)


# --- GEGLU


def fuse_geglu(editor: Editor) -> None:
    """value, gate = halves of a linear layer; value * gelu(gate)."""
    for node in tuple(editor.graph):
        if node.domain == INTERNAL and node.op_type == "Gelu":
            _geglu(editor, node)
    editor.prune()


def _geglu(editor: Editor, gelu: ir.Node) -> None:
    product = only_user(gelu.outputs[0], "Mul")
    if product is None:
        return
    value = product.inputs[1] if product.inputs[0] is gelu.outputs[0] else product.inputs[0]
    first, second = _half(value), _half(gelu.inputs[0])
    if first is None or second is None or first[0] is not second[0]:
        return
    source = first[0]
    linear = source.producer()
    if not is_op(linear, "Linear", domain=DOMAIN) or attribute(linear, "activation"):
        return
    width = attribute(linear, "out_features")
    ranges = ((0, width // 2), (width // 2, width))
    if width % 2 or (first[1:], second[1:]) != ranges or input_of(linear, 3) is not None:
        return
    readers = {value.producer(), gelu.inputs[0].producer()}  # type: ignore[union-attr]
    if set(users(source)) - readers or source.is_graph_output():
        return
    fused = editor.fused(
        product,
        "LinearGeglu",
        linear.inputs[0],
        linear.inputs[1],
        input_of(linear, 2),
        in_features=attribute(linear, "in_features"),
        out_features=width // 2,
        weight_format="plain",
    )
    editor.replace(product.outputs[0], fused)


def _half(value: ir.Value | None) -> tuple[ir.Value, int, int] | None:
    """(source, begin, end) when `value` is a range of the last axis of `source`."""
    node = None if value is None else value.producer()
    dims = dims_of(node.inputs[0]) if node is not None and node.inputs else None
    if value is None or node is None or dims is None or not isinstance(dims[-1], int):
        return None
    last = (-1, len(dims) - 1)
    source: Any = node.inputs[0]
    if is_op(node, "Split") and attribute(node, "axis", 0) in last:
        sizes = numbers(tuple((dims_of(out) or (Dim.symbol(""),))[-1] for out in node.outputs))
        if sizes is None:
            return None
        index = node.outputs.index(value)
        return source, sum(sizes[:index]), sum(sizes[: index + 1])
    if not is_op(node, "Slice"):
        return None
    parts = [content_of(input_of(node, index)) for index in (1, 2, 3, 4)]
    if any(part is not None and part.size != 1 for part in parts) or parts[2] is None:
        return None
    begin, end, axis, step = (1 if part is None else part.reshape(-1)[0] for part in parts)
    if axis not in last or step != 1 or not isinstance(begin, int) or not isinstance(end, int):
        return None
    return source, *slice(begin, end).indices(dims[-1])[:2]


# --- several layers of one input


def pack_shared(editor: Editor, before: ir.Node, layers: list[ir.Node]) -> ir.Value | None:
    """One layer that computes what `layers` do, side by side; None unless they read one value."""
    first = layers[0]
    if len(set(layers)) < len(layers):
        return None
    for layer in layers:
        is_plain = is_op(layer, "Linear", domain=DOMAIN) and not attribute(layer, "activation")
        if not is_plain or layer.inputs[0] is not first.inputs[0] or input_of(layer, 3) is not None:
            return None
        if len(users(layer.outputs[0])) != 1 or layer.outputs[0].is_graph_output():
            return None
    widths = [attribute(layer, "out_features") for layer in layers]
    columns = attribute(first, "in_features")
    tensors = [constant(layer.inputs[1]) for layer in layers]
    biases = [small_array(input_of(layer, 2)) for layer in layers]
    bias = None
    if any(b is not None for b in biases):
        bias = np.concatenate(
            [
                np.zeros(n, np.float32) if b is None else b
                for b, n in zip(biases, widths, strict=True)
            ]
        )
    if any(tensor is None for tensor in tensors):
        return None
    stacked = derived(
        [tensor for tensor in tensors if tensor is not None],
        (sum(widths), columns),
        lambda *arrays: np.concatenate(arrays),
    )
    result: ir.Value = editor.fused(
        before,
        "Linear",
        first.inputs[0],
        editor.store(stacked, "weight"),
        None if bias is None else editor.store(bias, "bias"),
        in_features=columns,
        out_features=sum(widths),
        activation="",
        weight_format="plain",
    )
    return result
