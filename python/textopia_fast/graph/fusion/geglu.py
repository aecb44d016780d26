"""GEGLU: one half of a linear layer times the GELU of the other."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir

from ..dims import Dim, numbers
from ..edit import DOMAIN, Editor, attribute, content_of, dims_of, input_of, is_op, only_user, users
from .activations import INTERNAL

__all__ = ["fuse"]


def fuse(editor: Editor) -> None:
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
