"""LayerNorm over the last axis: the operator, or the nodes of which it was made before set 17."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..edit import (
    Editor,
    attribute,
    constant,
    content_of,
    dims_of,
    input_of,
    is_op,
    only_user,
    producer,
    scalar,
    stored_sizes,
)

__all__ = ["fuse"]


def fuse(editor: Editor) -> None:
    """Finds layer norms."""
    for node in tuple(editor.graph):
        if is_op(node, "LayerNormalization"):
            _operator(editor, node)
        elif is_op(node, "Div"):
            _decomposed(editor, node)
    editor.prune()


def _operator(editor: Editor, node: ir.Node) -> None:
    dims = dims_of(node.inputs[0])
    if dims is None or attribute(node, "axis", -1) not in (-1, len(dims) - 1):
        return
    if any(out.uses() for out in node.outputs[1:]):
        return
    epsilon = attribute(node, "epsilon", 1e-5)
    _put(editor, node, node.inputs[0], node.outputs[0], epsilon, node.inputs[1], input_of(node, 2))


def _decomposed(editor: Editor, node: ir.Node) -> None:
    """d = x - mean(x); d / sqrt(mean(d * d) + epsilon) * gamma + beta."""
    root = producer(node.inputs[1], "Sqrt")
    plus = producer(root.inputs[0], "Add") if root is not None else None
    if plus is None:
        return
    numbers = [scalar(value) for value in plus.inputs]
    epsilon = numbers[1] if numbers[0] is None else numbers[0]
    variance = producer(plus.inputs[0 if numbers[0] is None else 1], "ReduceMean")
    centred = node.inputs[0]
    minus = producer(centred, "Sub")
    if epsilon is None or variance is None or minus is None or not _over_last(variance):
        return
    square = producer(variance.inputs[0], "Pow", "Mul")
    if square is None or square.inputs[0] is not centred:
        return
    if square.inputs[1] is not centred and scalar(square.inputs[1]) != 2.0:
        return
    mean = producer(minus.inputs[1], "ReduceMean")
    x = minus.inputs[0]
    if mean is None or mean.inputs[0] is not x or not _over_last(mean):
        return
    result, before = node.outputs[0], node
    gamma = beta = None
    width = (dims_of(x) or (None,))[-1]
    if (times := only_user(result, "Mul")) is not None:
        gamma = _vector(times, result, width)
        if gamma is not None:
            result, before = times.outputs[0], times
    if (add := only_user(result, "Add")) is not None:
        beta = _vector(add, result, width)
        if beta is not None:
            result, before = add.outputs[0], add
    _put(editor, before, x, result, epsilon, gamma, beta)


def _over_last(node: ir.Node) -> bool:
    dims = dims_of(node.inputs[0])
    axes = attribute(node, "axes")
    if axes is None:
        content = content_of(input_of(node, 1))
        axes = None if content is None else content.reshape(-1).tolist()
    is_last = dims is not None and axes is not None and list(axes) in ([-1], [len(dims) - 1])
    return is_last and attribute(node, "keepdims", 1) == 1


def _vector(node: ir.Node, value: ir.Value, width: object) -> ir.Value | None:
    other = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
    tensor = constant(other)
    return other if tensor is not None and tuple(tensor.shape) == (width,) else None


def _put(
    editor: Editor,
    before: ir.Node,
    x: ir.Value | None,
    result: ir.Value,
    epsilon: float,
    gamma: ir.Value | None,
    beta: ir.Value | None,
) -> None:
    dims = dims_of(x)
    if dims is None or not isinstance(dims[-1], int):
        return
    for value in (gamma, beta):
        tensor = constant(value)
        if value is not None and (tensor is None or stored_sizes(tensor) != dims[-1:]):
            return
    if gamma is None:
        gamma = editor.store(np.ones(dims[-1], np.float32), "gamma")
    if beta is None:
        beta = editor.store(np.zeros(dims[-1], np.float32), "beta")
    fused = editor.fused(before, "LayerNorm", x, gamma, beta, epsilon=float(epsilon))
    editor.replace(result, fused)
