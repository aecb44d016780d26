"""What comes after a fused operator and costs it nothing: activation, time bias, residual."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..edit import DOMAIN, Editor, dims_of, input_of, only_user
from ..movement import chains_to, same_order
from ..sizes import SizeWriter
from .activations import ACTIVATIONS, INTERNAL

__all__ = ["fuse"]

_ACTIVATIONS = {
    "GroupNorm": ("Silu",),
    "Conv": ("Silu",),
    "Linear": tuple(ACTIVATIONS),
}
_RESIDUAL = {"Conv": 4, "Linear": 3}
_TIME_BIAS = 3


def fuse(editor: Editor) -> None:
    """Takes activations, time biases and residuals into the operators before them."""
    writer = SizeWriter(editor)
    for node in tuple(editor.graph):
        if node.graph is None or node.domain != DOMAIN:
            continue
        if node.op_type == "Conv":
            node = _time_bias(editor, writer, node)
        _activation(editor, node)
        _residual(editor, node)
        _residual_of_tokens(editor, writer, node)
    editor.prune()


def _activation(editor: Editor, node: ir.Node) -> None:
    follower = only_user(node.outputs[0], *_ACTIVATIONS.get(node.op_type, ()), domain=INTERNAL)
    if follower is not None and input_of(node, _RESIDUAL.get(node.op_type, 9)) is None:
        node.attributes["activation"] = ir.AttrString("activation", ACTIVATIONS[follower.op_type])
        editor.replace(follower.outputs[0], node.outputs[0])
        editor.graph.remove(follower, safe=True)


def _time_bias(editor: Editor, writer: SizeWriter, node: ir.Node) -> ir.Node:
    """Conv(x) + t where t is [B, C] spread over the pixels. Gives the node that stands for both."""
    result = node.outputs[0]
    add = only_user(result, "Add")
    dims = dims_of(result)
    if add is None or dims is None or input_of(node, _TIME_BIAS) is not None:
        return node
    other = add.inputs[1] if add.inputs[0] is result else add.inputs[0]
    if other is None or dims_of(other) != (dims[0], 1, 1, dims[3]):
        return node
    vector: ir.Value | None = None
    for chain in chains_to(other):
        is_vector = dims_of(chain.source) == (dims[0], dims[3])
        if is_vector and same_order(chain, [("reshape", (dims[0], 1, 1, dims[3]))]):
            vector = chain.source
    if vector is None:
        axes = editor.store(np.array([1, 2], np.int64), "axes")
        vector = editor.op(add, "Squeeze", other, axes)
    return _attach(editor, node, add, _TIME_BIAS, vector)


def _residual(editor: Editor, node: ir.Node) -> None:
    place = _RESIDUAL.get(node.op_type)
    result = node.outputs[0]
    add = only_user(result, "Add")
    if place is None or add is None or input_of(node, place) is not None:
        return
    other = add.inputs[1] if add.inputs[0] is result else add.inputs[0]
    dims = dims_of(result)
    if other is None or other is result or dims is None or dims_of(other) != dims:
        return
    # A sum of vectors [B, C] costs nothing; apart, its operands can leave the loop each on its own.
    if len(dims) > 2:
        _attach(editor, node, add, place, other)


def _residual_of_tokens(editor: Editor, writer: SizeWriter, node: ir.Node) -> None:
    """The same where tokens become an image before the image is added, as in a VAE's attention."""
    place, result = _RESIDUAL.get(node.op_type), node.outputs[0]
    reshape = only_user(result, "Reshape")
    if place is None or reshape is None or input_of(node, place) is not None:
        return
    image = reshape.outputs[0]
    add = only_user(image, "Add")
    if add is None:
        return
    other = add.inputs[1] if add.inputs[0] is image else add.inputs[0]
    dims = dims_of(result)
    if other is None or other is image or dims is None or dims_of(other) != dims_of(image):
        return
    tokens = writer.reshape(add, other, dims)
    if tokens is None:
        return
    made = _with_input(editor, node, add, place, tokens)
    same = editor.add(add, "Reshape", [made.outputs[0], reshape.inputs[1]])
    editor.replace(add.outputs[0], same.outputs[0])


def _attach(editor: Editor, node: ir.Node, add: ir.Node, place: int, value: ir.Value) -> ir.Node:
    """Gives `node` one more input in place of `add`."""
    made = _with_input(editor, node, add, place, value)
    editor.replace(add.outputs[0], made.outputs[0])
    return made


def _with_input(
    editor: Editor, node: ir.Node, before: ir.Node, place: int, value: ir.Value
) -> ir.Node:
    """A copy of `node` with one more input, where that is ready."""
    inputs = [input_of(node, index) for index in range(max(place + 1, len(node.inputs)))]
    inputs[place] = value
    attributes = {name: attr.value for name, attr in node.attributes.items()}
    return editor.add(before, node.op_type, inputs, attributes, DOMAIN)
