"""Headroom for float16: the image that runs through a VAE is stored 64 times smaller.

Trained VAEs (SDXL's above all) have activations beyond float16's 65,504. They grow in the sums of
the residual blocks, and whatever reads such a sum is a group norm, which does not care for the
size of its input, or linear. So the layers that make the sums have their weights and biases
multiplied by 2^-6, which rounds nothing, group norms that read them have their epsilon multiplied
by 2^-12, and the result is the same. No part of a VAE has to be computed in float32.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .edit import (
    DOMAIN,
    Editor,
    attribute,
    constant,
    input_of,
    is_op,
    present,
    stored_sizes,
    users,
)
from .weights import derived

__all__ = ["SCALE", "give_headroom"]

SCALE = 2.0**-6
_RESIDUAL = {"Conv": 4, "Linear": 3}
_TIME_BIAS = 3
_MOVES = ("Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


def give_headroom(editor: Editor) -> int:
    """Scales a graph of fused operators; gives the number of values that are smaller."""
    small = {
        output
        for node in editor.graph
        for output in node.outputs
        if _is_layer(node) or _is_sum(node) or is_op(node, *_MOVES)
    }
    while wrong := {value for value in small if not _fits(value, small)}:
        small -= wrong
    for node in editor.graph:
        if _is_layer(node) and node.outputs[0] in small:
            if node.inputs[0] not in small:
                _scale(editor, node, 1)
            _scale(editor, node, 2)
        elif _is_norm(node) and node.inputs[0] in small:
            epsilon = attribute(node, "epsilon") * SCALE**2
            node.attributes["epsilon"] = ir.AttrFloat32("epsilon", epsilon)
    editor.prune()
    return len(small)


def _is_layer(node: ir.Node) -> bool:
    """A convolution or linear layer without anything that is not linear."""
    is_linear = is_op(node, *_RESIDUAL, domain=DOMAIN) and not attribute(node, "activation", "")
    return is_linear and (node.op_type != "Conv" or input_of(node, _TIME_BIAS) is None)


def _is_norm(node: ir.Node) -> bool:
    return is_op(node, "GroupNorm", domain=DOMAIN)


def _is_sum(node: ir.Node) -> bool:
    return is_op(node, "Add")


def _fits(value: ir.Value, small: set[ir.Value]) -> bool:
    """Whether what makes `value` can make it smaller, and all that reads it can take it so."""
    node = present(value.producer())
    if value.is_graph_output():
        return False
    if _is_layer(node):
        residual = input_of(node, _RESIDUAL[node.op_type])
        if residual is not None and residual not in small:
            return False
    elif any(source not in small for source in node.inputs[: 2 if _is_sum(node) else 1]):
        return False
    return all(_takes(reader, value, small) for reader in users(value))


def _takes(node: ir.Node, value: ir.Value, small: set[ir.Value]) -> bool:
    if _is_norm(node):
        return True
    if not (_is_layer(node) or _is_sum(node) or is_op(node, *_MOVES)):
        return False
    return node.outputs[0] in small


def _scale(editor: Editor, node: ir.Node, index: int) -> None:
    stored = constant(input_of(node, index))
    if stored is not None:
        smaller = derived([stored], stored_sizes(stored), lambda array: array * np.float32(SCALE))
        node.replace_input_with(index, editor.store(smaller, "smaller"))
