"""Linear layers of one input, computed as one: Q, K, V of self-attention, K, V of the prompt."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..edit import DOMAIN, Editor, attribute, constant, input_of, is_op, small_array, users
from ..weights import derived

__all__ = ["pack_shared"]


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
