"""The operators of ONNX Runtime's CPU provider, float32."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from benchmarks.matrix.layers import Layer, Prepared
from textopia_fast import _ort


def nodes_of(layer: Layer) -> list:
    make = helper.make_node
    if layer.kind == "conv":
        stride = layer.sizes[3]
        return [make("Conv", ["x", "weight", "bias"], ["y"], pads=[1] * 4, strides=[stride] * 2)]
    if layer.kind == "upsample":
        return [
            make("Resize", ["x", "", "scales"], ["large"], mode="nearest"),
            make("Conv", ["large", "weight", "bias"], ["y"], pads=[1] * 4),
        ]
    if layer.kind == "linear":
        return [
            make("MatMul", ["x", "weight"], ["product"]),
            make("Add", ["product", "bias"], ["sum"]),
            make("Add", ["sum", "residual"], ["y"]),
        ]
    if layer.kind == "geglu":
        return [
            make("MatMul", ["x", "weight"], ["product"]),
            make("Add", ["product", "bias"], ["sum"]),
            make("Split", ["sum"], ["value", "gate"], axis=-1, num_outputs=2),
            make("Gelu", ["gate"], ["gelu"]),
            make("Mul", ["value", "gelu"], ["y"]),
        ]
    split = [
        node
        for name in "qkv"
        for node in (
            make("Reshape", [name, "heads"], [name + "4"]),
            make(
                "Transpose",
                [name + "4"],
                [name + "h"],
                perm=[0, 2, 3, 1] if name == "k" else [0, 2, 1, 3],
            ),
        )
    ]
    return [
        *split,
        make("MatMul", ["qh", "kh"], ["logits"]),
        make("Mul", ["logits", "scale"], ["scaled"]),
        make("Softmax", ["scaled"], ["weights"]),
        make("MatMul", ["weights", "vh"], ["mixed"]),
        make("Transpose", ["mixed"], ["back"], perm=[0, 2, 1, 3]),
        make("Reshape", ["back", "flat"], ["y"]),
    ]


def prepare(layer: Layer, data: dict[str, np.ndarray], threads: int) -> Prepared:
    free = ("q", "k", "v", "x", "residual")
    feeds = {name: value for name, value in data.items() if name in free}
    constants = {name: value for name, value in data.items() if name not in free}
    if layer.kind == "attention":
        width = layer.sizes[2]
        constants["heads"] = np.array([0, 0, layer.heads, width])
        constants["flat"] = np.array([0, 0, layer.heads * width])
        constants["scale"] = np.array(width**-0.5, np.float32)
    elif layer.kind == "upsample":
        constants["scales"] = np.array([1, 1, 2, 2], np.float32)
    elif layer.kind != "conv":
        constants["weight"] = np.ascontiguousarray(constants["weight"].T)
    inputs = [helper.make_tensor_value_info(k, 1, v.shape) for k, v in feeds.items()]
    rank = feeds[next(iter(feeds))].ndim
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)
    held = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes_of(layer), "layer", inputs, [output], held)
    opsets = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    session = _ort.create_session(model.SerializeToString(), label=layer.name, threads=threads)
    return Prepared(
        lambda count: session.run_repeatedly(feeds, count), lambda: session.run(feeds)["y"]
    )
