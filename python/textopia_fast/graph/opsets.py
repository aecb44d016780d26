"""Operator sets: a graph for CUDA is written in one for which the provider has kernels.

It has them for the set in which an operator was defined last, and newer sets define many anew. It
multiplies bfloat16 in Conv from set 22 on; everything else is best served by set 18 or older.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .edit import Editor, attribute, input_of, is_op
from .lowering import NARROW

__all__ = ["restate", "settle_for_cuda"]

_USUAL, _BFLOAT16_CONV = 18, 22

# These mean the same in sets 13 to 24 as the compiler leaves them; newer sets only add types, and
# attributes whose defaults are the old meaning.
# fmt: off
_SAME = frozenset((
    "Abs", "Add", "And", "ArgMax", "Cast", "Ceil", "Clip", "Concat", "ConstantOfShape", "Conv",
    "Cos", "CumSum", "Div", "Einsum", "Equal", "Erf", "Exp", "Expand", "Flatten", "Floor",
    "Gather", "Gemm", "Greater", "GreaterOrEqual", "Identity", "InstanceNormalization",
    "LayerNormalization", "Less", "LessOrEqual", "Log", "MatMul", "Max", "Min", "Mod", "Mul",
    "Neg", "Not", "Or", "Pad", "Pow", "Range", "Reciprocal", "ReduceSum", "Relu", "Reshape",
    "Shape", "Sigmoid", "Sign", "Sin", "Size", "Slice", "Softmax", "Sqrt", "Squeeze", "Sub",
    "Tanh", "Tile", "Transpose", "Trilu", "Unsqueeze", "Where",
))
# fmt: on
_REDUCTIONS = frozenset(("ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd"))
_AXES_ARE_INPUTS = 18


def settle_for_cuda(editor: Editor, dtype: ir.DataType) -> None:
    """Chooses the operator set of a lowered graph; `dtype` is that of its activations.

    Convolutions compute in float32 where set 22 is wanted for them and cannot be had.
    """
    graph = editor.graph
    before = graph.opset_imports[""]
    convs = [node for node in graph if is_op(node, "Conv") and NARROW in node.meta]
    if dtype == ir.DataType.BFLOAT16 and convs:
        if before != _BFLOAT16_CONV and not restate(editor, _BFLOAT16_CONV):
            for node in convs if before < _BFLOAT16_CONV else ():
                del node.meta[NARROW]
                node.meta["reason"] = f"no bfloat16 in operator set {before}"
    elif before > _USUAL:
        restate(editor, _USUAL)


def restate(editor: Editor, version: int) -> bool:
    """Writes a graph in operator set `version`, 18 or newer; False where it stays as it is.

    That is so when the meaning of one of its operators has changed between the two.
    """
    graph = editor.graph
    if not all(_can_restate(node, version) for node in graph if not node.domain):
        return False
    for node in graph:
        for name in ("saturate", "round_mode") if is_op(node, "Cast") else ():
            node.attributes.pop(name, None)  # of 8-bit types, and newer than set 18
    if graph.opset_imports[""] < _AXES_ARE_INPUTS:
        for node in tuple(graph):
            if node.domain:
                continue
            if node.op_type == "Split" and input_of(node, 1) is None:
                count = len(node.outputs)
                node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", count)
            axes = attribute(node, "axes")
            if node.op_type in _REDUCTIONS and axes is not None:
                del node.attributes["axes"]
                node.resize_inputs(2)
                node.replace_input_with(1, editor.store(np.array(axes, np.int64), "axes"))
    graph.opset_imports[""] = version
    return True


def _can_restate(node: ir.Node, version: int) -> bool:
    if node.op_type in _SAME or node.op_type in _REDUCTIONS or node.op_type == "Split":
        return version >= _AXES_ARE_INPUTS
    if node.op_type == "Resize":  # the one that the compiler writes; others have changed
        way = str(attribute(node, "coordinate_transformation_mode", "half_pixel"))
        return way == "asymmetric" and str(attribute(node, "mode", "nearest")) == "nearest"
    return False
