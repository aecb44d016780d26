"""Activations: the pieces of SiLU, GELU and quick GELU become one node each.

They are named `Silu`, `Gelu` and `QuickGelu` in a domain of the compiler's own; what no fused
operator takes in is written out again by `lower`.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from ..edit import DOMAIN, Editor, attribute, dims_of, is_op, only_user, present, scalar, users

__all__ = ["ACTIVATIONS", "INTERNAL", "fuse", "lower"]

INTERNAL = f"{DOMAIN}.internal"
ACTIVATIONS = {"Silu": "silu", "Gelu": "gelu", "QuickGelu": "quick_gelu"}
"""Operator of the internal domain -> value of the attribute `activation`."""


def fuse(editor: Editor) -> None:
    """Finds activations."""
    for node in tuple(editor.graph):
        if node.graph is None:
            continue
        if is_op(node, "Sigmoid"):
            _sigmoid(editor, node)
        elif is_op(node, "Erf"):
            _erf(editor, node)
        elif is_op(node, "Gelu") or is_op(node, "Gelu", domain="com.microsoft"):
            if attribute(node, "approximate", "none") == "none":
                _put(editor, node, "Gelu", node.inputs[0], node.outputs[0])
        elif is_op(node, "QuickGelu", domain="com.microsoft"):
            factor = attribute(node, "alpha", 1.702)
            name = {1.0: "Silu", 1.702: "QuickGelu"}.get(round(factor, 3))
            if name:
                _put(editor, node, name, node.inputs[0], node.outputs[0])
        elif is_op(node, "Swish") and attribute(node, "alpha", 1.0) == 1.0:
            _put(editor, node, "Silu", node.inputs[0], node.outputs[0])
    editor.prune()


def lower(editor: Editor) -> None:
    """Writes the activations that are left as standard operators."""
    for node in tuple(editor.graph):
        if node.domain != INTERNAL:
            continue
        x = node.inputs[0]
        if node.op_type == "Gelu":
            scaled = editor.op(node, "Mul", x, _number(editor, math.sqrt(0.5)))
            erf = editor.op(node, "Erf", scaled)
            half = editor.op(node, "Mul", x, _number(editor, 0.5))
            result = editor.op(node, "Mul", half, editor.op(node, "Add", erf, _number(editor, 1.0)))
        else:
            inner = x
            if node.op_type == "QuickGelu":
                inner = editor.op(node, "Mul", x, _number(editor, 1.702))
            result = editor.op(node, "Mul", x, editor.op(node, "Sigmoid", inner))
        editor.replace(node.outputs[0], result)
    editor.prune()


def _number(editor: Editor, value: float) -> ir.Value:
    return editor.store(np.array(value, np.float32), "number")


def _put(editor: Editor, before: ir.Node, name: str, x: ir.Value | None, result: ir.Value) -> None:
    # All uses of one value share its activation: exporters repeat it for each layer.
    for node in users(present(x)):
        if node.domain == INTERNAL and node.op_type == name:
            editor.replace(result, node.outputs[0])
            return
    node = editor.add(before, name, [x], domain=INTERNAL)
    node.outputs[0].meta["dims"] = dims_of(x)
    editor.replace(result, node.outputs[0])


def _near(value: float | None, wanted: float) -> bool:
    # Half precision keeps three digits of these constants.
    return value is not None and abs(value - wanted) <= 1e-3 * wanted


def _sigmoid(editor: Editor, node: ir.Node) -> None:
    """x * sigmoid(x), x * sigmoid(1.702 x)."""
    product = only_user(node.outputs[0], "Mul")
    inner = node.inputs[0]
    if product is None or inner is None:
        return
    other = _other(product, node.outputs[0])
    if other is inner:
        _put(editor, node, "Silu", inner, product.outputs[0])
        return
    scaled = inner.producer()
    if not is_op(scaled, "Mul") or other not in scaled.inputs:
        return
    if _near(scalar(_other(scaled, other)), 1.702):
        _put(editor, node, "QuickGelu", other, product.outputs[0])


def _erf(editor: Editor, node: ir.Node) -> None:
    """0.5 * x * (1 + erf(x / sqrt(2))), the factors in any order."""
    x = _divided_by_root_two(node.inputs[0])
    if x is None:
        return
    plus = only_user(node.outputs[0], "Add")
    if plus is None or not _near(scalar(_other(plus, node.outputs[0])), 1.0):
        return
    result, factor, has_x = plus.outputs[0], 1.0, False
    while (product := only_user(result, "Mul")) is not None:
        other = _other(product, result)
        number = scalar(other)
        half = other.producer() if other is not None else None
        if number is not None:
            factor *= number
        elif other is x and not has_x:
            has_x = True
        elif is_op(half, "Mul") and x in half.inputs and not has_x:
            inside = scalar(_other(half, x))
            if inside is None:
                return
            factor, has_x = factor * inside, True
        else:
            return
        result = product.outputs[0]
        if has_x and _near(factor, 0.5):
            _put(editor, node, "Gelu", x, result)
            return


def _divided_by_root_two(value: ir.Value | None) -> ir.Value | None:
    node = None if value is None else value.producer()
    if is_op(node, "Div") and _near(scalar(node.inputs[1]), math.sqrt(2)):
        return node.inputs[0]
    if is_op(node, "Mul"):
        for index in (0, 1):
            if _near(scalar(node.inputs[index]), math.sqrt(0.5)):
                return node.inputs[1 - index]
    return None


def _other(node: ir.Node, value: ir.Value | None) -> ir.Value | None:
    """The operand of a two-operand node that is not `value` (or `value` when both are)."""
    return node.inputs[1] if node.inputs[0] is value else node.inputs[0]
