"""Linear layers: MatMul with a stored matrix, and Gemm, with their bias."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..edit import (
    Editor,
    attribute,
    constant,
    dims_of,
    input_of,
    is_op,
    only_user,
    small_array,
    stored_sizes,
)
from ..weights import derived, float32

__all__ = ["fuse"]


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
