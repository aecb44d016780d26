"""Element types: everything float32 while patterns are sought, then bfloat16 or float16 between
fused operators, with float32 islands where a standard operator computes."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from .edit import DOMAIN, Editor, attribute, constant, is_op, stored_sizes
from .lowering import NARROW
from .weights import derived, float32

__all__ = ["narrow", "widen"]

_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
_FLOATS = (ir.DataType.FLOAT, *_HALF)
# Operators that only move elements: they exist for every type, and carry the one they are given.
_CARRIERS = (
    "Concat",
    "Flatten",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)
# Inputs of fused operators that hold activations; the others are float32 or weights.
_ACTIVATIONS = {
    "Conv": (0, 3, 4),
    "Linear": (0, 3),
    "LinearGeglu": (0,),
    "GroupNorm": (0, 3),
    "LayerNorm": (0,),
    "Geglu": (0,),
    "Attention": (0, 1, 2),
}


def widen(graph: ir.Graph) -> None:
    """Makes a float16 graph a float32 one: its rounding between operators is not worth keeping."""
    for value in graph.initializers.values():
        if value.const_value is not None and value.const_value.dtype in _HALF:
            value.const_value = float32(value.const_value)
            value.type = ir.TensorType(ir.DataType.FLOAT)
    for value in (*graph.inputs, *(out for node in graph for out in node.outputs)):
        if value.dtype in _HALF:
            value.type = ir.TensorType(ir.DataType.FLOAT)
    for node in graph:
        if is_op(node, "Cast") and attribute(node, "to") in _HALF:
            node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT)
        filled = attribute(node, "value") if is_op(node, "ConstantOfShape") else None
        if filled is not None and filled.dtype in _HALF:
            node.attributes["value"] = ir.AttrTensor("value", float32(filled))


def narrow(editor: Editor, dtype: ir.DataType, handed_over: Collection[str] = ()) -> None:
    """Lets fused operators exchange values of `dtype`.

    Args:
        editor: The graph.
        dtype: BFLOAT16 or FLOAT16; FLOAT changes nothing.
        handed_over: Inputs and outputs that have this type, too; all others stay as they are.
    """
    if dtype == ir.DataType.FLOAT:
        return
    _Narrowing(editor, dtype).run(handed_over)


def _narrow_ports(node: ir.Node) -> Collection[int] | None:
    """The inputs that a node reads in the target's type; None where it computes in float32."""
    if node.domain == DOMAIN:
        return _ACTIVATIONS[node.op_type]
    ports: Collection[int] | None = node.meta.get(NARROW)
    return ports


def _narrowed(tensor: ir.TensorProtocol, dtype: ir.DataType) -> ir.TensorProtocol:
    """A stored tensor in another type, converted when it is written."""
    to = dtype.numpy()
    return derived([tensor], stored_sizes(tensor), lambda array: array.astype(to), dtype)


class _Narrowing:
    def __init__(self, editor: Editor, dtype: ir.DataType) -> None:
        self._editor = editor
        self._dtype = dtype
        self._low: set[ir.Value] = set()
        self._cast: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def run(self, handed_over: Collection[str]) -> None:
        graph = self._editor.graph
        for value in graph.inputs:
            if value.name in handed_over:
                self._lower(value)
        for node in tuple(graph):
            wanted = _narrow_ports(node)
            if wanted is not None:
                for index in range(len(node.inputs)):
                    self._feed(node, index, index in wanted)
                self._lower(node.outputs[0])
            elif is_op(node, *_CARRIERS) and self._carries_low(node):
                count = len(node.inputs) if node.op_type == "Concat" else 1
                for index in range(count):
                    self._feed(node, index, True)
                for output in node.outputs:
                    self._lower(output)
            elif not is_op(node, "Shape", "Size"):
                for index in range(len(node.inputs)):
                    self._feed(node, index, False)
        for index, output in enumerate(tuple(graph.outputs)):
            self._finish(index, output, output.name in handed_over)
        self._editor.prune()

    def _lower(self, value: ir.Value) -> None:
        self._low.add(value)
        value.type = ir.TensorType(self._dtype)

    def _carries_low(self, node: ir.Node) -> bool:
        data = node.inputs if node.op_type == "Concat" else node.inputs[:1]
        return any(value in self._low for value in data)

    def _feed(self, node: ir.Node, index: int, low: bool) -> None:
        """Gives input `index` the type that the node reads there."""
        value = node.inputs[index]
        if value is None or (value in self._low) == low:
            return
        if low and value.dtype not in _FLOATS:
            return
        node.replace_input_with(index, self._converted(node, value, low))

    def _converted(self, before: ir.Node, value: ir.Value, low: bool) -> ir.Value:
        dtype = self._dtype if low else ir.DataType.FLOAT
        if (value, dtype) not in self._cast:
            stored = constant(value)
            if low and stored is not None:
                made = self._editor.store(_narrowed(stored, dtype), "narrow")
            else:
                made = self._editor.op(before, "Cast", value, to=int(dtype))
            made.type = ir.TensorType(dtype)
            self._cast[value, dtype] = made
            if low:
                self._low.add(made)
        return self._cast[value, dtype]

    def _finish(self, index: int, output: ir.Value, low: bool) -> None:
        """Gives an output of the graph its type."""
        if (output in self._low) == low or output.dtype not in _FLOATS:
            return
        graph = self._editor.graph
        name, output.name = output.name, self._editor.name("output")
        dtype = self._dtype if low else ir.DataType.FLOAT
        node = self._editor.make("Cast", [output], {"to": int(dtype)})
        graph.append(node)
        node.outputs[0].name = name
        node.outputs[0].type = ir.TensorType(dtype)
        node.outputs[0].shape = output.shape
        graph.outputs[index] = node.outputs[0]
