"""Graphs for these tests: small ones, and the bundled model's with its free sizes fixed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import textopia_fast

BUNDLED = Path(textopia_fast.__file__).parent / "models" / "tiny_shapes"
UNET_SIZES = {"batch_size": 2, "height": 16, "width": 16, "sequence_length": 16}
VAE_SIZES = {"batch_size": 2, "latent_height": 8, "latent_width": 8}


def model_of(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Mapping[str, Sequence[int | str]],
    weights: Mapping[str, np.ndarray] | None = None,
    dtype: int = TensorProto.FLOAT,
) -> bytes:
    def infos(shapes: Mapping[str, Sequence[int | str]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(name, dtype, shape) for name, shape in shapes.items()]

    tensors = [numpy_helper.from_array(value, name) for name, value in (weights or {}).items()]
    graph = helper.make_graph(nodes, "graph", infos(inputs), infos(outputs), tensors)
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


def add_then_relu() -> bytes:
    nodes = [
        helper.make_node("Add", ["x", "x"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["y"]),
    ]
    return model_of(nodes, {"x": ["rows", 4]}, {"y": ["rows", 4]})


def convolution() -> bytes:
    weights = {"w": np.ones((8, 4, 3, 3), np.float32)}
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="the_conv", pads=[1, 1, 1, 1])
    return model_of([node], {"x": ["rows", 4, 8, 8]}, {"y": ["rows", 8, 8, 8]}, weights)


def with_sizes(path: Path, sizes: Mapping[str, int]) -> bytes:
    """The graph with its symbolic sizes fixed."""
    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param in sizes:
                size.dim_value = sizes[size.dim_param]
            elif size.dim_param and value in model.graph.output:
                size.Clear()  # computed from the others
    del model.graph.value_info[:]
    return model.SerializeToString()
