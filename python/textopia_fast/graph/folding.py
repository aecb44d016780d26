"""Folds what is known before the graph runs: constants, sizes, nodes that change nothing.

Batch, height, width and lengths stay free; what only depends on them is written anew by
`SizeWriter`, so that no size hangs on an activation any more.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from .dims import Dim, numbers
from .edit import Editor, attribute, constant, content_of, dims_of, input_of, is_op, scalar
from .rules import RULES, UnknownSizeError, target_of_reshape
from .sizes import SizeWriter
from .weights import depth_of, derived

__all__ = ["fold"]

_MAX_FOLDED = 1 << 22  # elements that a folded constant may have
_MAX_DEPTH = 4  # of weights made of weights
_MAX_ALL_FOLDED = 1 << 26  # ... and all of them together
_NEVER = ("Identity", "DequantizeLinear")


def fold(editor: Editor) -> None:
    """Infers all sizes, folds constants, removes nodes without effect, renews computed sizes."""
    left = _MAX_ALL_FOLDED
    for node in tuple(editor.graph):
        left -= _fold_node(editor, node, left)
    editor.prune()
    _write_sizes(editor)
    editor.prune()


def _fold_node(editor: Editor, node: ir.Node, limit: int) -> int:
    """Folds one node; gives how many elements were computed, at most `limit`."""
    editor.shaper.infer(node)
    if len(node.outputs) > 1 and any(out.uses() for out in node.outputs[1:]):
        return 0
    output = node.outputs[0]
    content = content_of(output)
    if content is not None and not any(isinstance(n, Dim) for n in content.reshape(-1)):
        dtype = output.dtype if output.dtype is not None else ir.DataType.INT64
        editor.replace(output, editor.store(content.astype(dtype.numpy()), "folded"))
        return 0
    same = _unchanged(node)
    if same is not None:
        editor.replace(output, same)
        return 0
    stored = _stored_result(node, min(limit, _MAX_FOLDED))
    if stored is None:
        return 0
    editor.replace(output, editor.store(stored, "folded"))
    return 0 if isinstance(stored, ir.LazyTensor) else stored.size


def _unchanged(node: ir.Node) -> ir.Value | None:
    """The value that the node's output equals."""
    source = input_of(node, 0)
    if source is None or node.domain:
        return None
    before, after = dims_of(source), dims_of(node.outputs[0])
    if node.op_type == "Identity":
        return source
    if node.op_type == "Dropout":
        training = input_of(node, 2)
        return source if training is None or scalar(training) == 0.0 else None
    if node.op_type == "Cast":
        return source if source.dtype == attribute(node, "to") else None
    if node.op_type == "Concat":
        return source if len(node.inputs) == 1 else None
    if node.op_type == "Transpose":
        order = attribute(node, "perm")
        return source if before is not None and list(order or ()) == [*range(len(before))] else None
    if node.op_type in ("Mul", "Div"):
        other = node.inputs[1]
        # The 1 may have more axes than `source`; then it does change something.
        if scalar(other) == 1.0 and before is not None and before == after:
            return source
        return None
    if node.op_type == "Add":
        for index in (0, 1):
            kept = node.inputs[index]
            is_whole = dims_of(kept) is not None and dims_of(kept) == after
            if is_whole and _is_zero(node.inputs[1 - index]):
                return kept
        return None
    if node.op_type in ("Reshape", "Expand", "Slice", "Squeeze", "Unsqueeze", "Flatten"):
        steps = input_of(node, 4)
        is_plain = node.op_type != "Slice" or steps is None or scalar(steps) == 1.0
        return source if is_plain and before is not None and before == after else None
    return None


def _is_zero(value: ir.Value | None) -> bool:
    """Whether a value is filled with zeros, as the unused operand of baddbmm is."""
    node = None if value is None else value.producer()
    if is_op(node, "ConstantOfShape"):
        tensor = attribute(node, "value")
        return tensor is None or not tensor.numpy().any()
    if is_op(node, "Mul"):
        for index in (0, 1):
            filled = node.inputs[1 - index]
            made = None if filled is None else filled.producer()
            if scalar(node.inputs[index]) == 0.0 and is_op(made, "ConstantOfShape"):
                return True
    return False


def _stored_result(node: ir.Node, limit: int) -> ir.TensorProtocol | None:
    """The node's result where all of its inputs are stored and the result is of modest size."""
    if node.domain or ("", node.op_type) not in RULES:
        return None
    if not node.inputs or node.op_type in _NEVER:
        return None
    tensors = [constant(value) for value in node.inputs if value is not None]
    if any(tensor is None for tensor in tensors):
        return None
    dims = dims_of(node.outputs[0])
    sizes = None if dims is None else numbers(dims)
    if sizes is None:
        return None
    dtype = node.outputs[0].dtype
    if node.op_type == "Transpose" and dtype is not None:
        # Weights may be large: they are turned when they are written, and read from the file then.
        source, order = tensors[0], attribute(node, "perm")
        if source is None or depth_of(source) >= _MAX_DEPTH:
            return None
        return derived([source], sizes, lambda array: array.transpose(order), dtype)
    elements = math.prod(sizes)
    if elements > limit or any(t.size > _MAX_FOLDED for t in tensors if t is not None):
        return None
    return _evaluate(node, elements)


def _evaluate(node: ir.Node, elements: int) -> ir.TensorProtocol | None:
    feeds: dict[str, np.ndarray] = {}
    names: list[str] = []
    for index, value in enumerate(node.inputs):
        names.append("" if value is None else f"i{index}")
        if value is not None and value.const_value is not None:
            feeds[names[-1]] = value.const_value.numpy()
    plain = ir.serde.serialize_node(node)
    alone = onnx.NodeProto(op_type=node.op_type, input=names, output=["o"])
    alone.attribute.extend(plain.attribute)
    version = node.graph.opset_imports[""] if node.graph is not None else 17
    graph = onnx.helper.make_graph(
        [alone],
        "fold",
        [onnx.helper.make_empty_tensor_value_info(name) for name in feeds],
        [onnx.helper.make_empty_tensor_value_info("o")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", version)])
    try:
        with np.errstate(all="ignore"):
            results: Any = ReferenceEvaluator(model).run(None, feeds)
    except Exception:  # whatever an odd node makes the evaluator raise, the runtime runs it instead
        return None
    result = np.asarray(results[0])
    return ir.tensor(result) if result.size == elements else None


def _write_sizes(editor: Editor) -> None:
    """Replaces computed sizes at the places that use them."""
    writer = SizeWriter(editor)
    for node in tuple(editor.graph):
        if node.graph is None or any(content_of(out) is not None for out in node.outputs):
            continue
        if is_op(node, "Reshape") and constant(node.inputs[1]) is None:
            _rewrite_reshape(editor, writer, node)
            continue
        for index, value in enumerate(node.inputs):
            content = content_of(value)
            if value is None or content is None or constant(value) is not None:
                continue
            sizes = list(content.reshape(-1))
            if not writer.can_write(sizes) or value.dtype != ir.DataType.INT64:
                continue
            written = writer.vector(sizes)
            if content.ndim == 0:
                axes = editor.store(np.array([0], np.int64))
                written = editor.op(node, "Squeeze", written, axes)
            if content.ndim <= 1:
                node.replace_input_with(index, written)


def _rewrite_reshape(editor: Editor, writer: SizeWriter, node: ir.Node) -> None:
    target, source = dims_of(node.outputs[0]), node.inputs[0]
    try:
        target_of_reshape(node)
    except UnknownSizeError:  # then the sizes are what the file states, which proves nothing
        return
    if target is None or source is None:
        return
    result = writer.reshape(node, source, target)
    if result is not None:
        editor.replace(node.outputs[0], result)
