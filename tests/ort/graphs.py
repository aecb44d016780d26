"""Small ONNX graphs for the tests of sessions, made with onnx.helper."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


def value(name: str, dtype: int, shape: Sequence[int | str | None]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def model(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    initializers: Sequence[onnx.TensorProto] = (),
    *,
    opset: int = 17,
    ir_version: int = 9,
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "test", inputs, outputs, list(initializers))
    opsets = [helper.make_opsetid("", opset)] + [helper.make_opsetid(name, 1) for name in domains]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version)


def add(shape: Sequence[int | str | None] = ("n", 16), **options) -> bytes:
    """y = a + b, float32."""
    return model(
        [helper.make_node("Add", ["a", "b"], ["y"])],
        [value("a", FLOAT, shape), value("b", FLOAT, shape)],
        [value("y", FLOAT, shape)],
        **options,
    ).SerializeToString()


def single(op: str, *, domain: str = "", dtype: int = FLOAT, **options) -> bytes:
    """y = op(x) over a vector of free length."""
    return model(
        [helper.make_node(op, ["x"], ["y"], domain=domain)],
        [value("x", dtype, ["n"])],
        [value("y", dtype, ["n"])],
        **options,
    ).SerializeToString()


def matmul_chain(size: int, length: int, rows: int | str | None = None) -> bytes:
    """y = x @ w @ w ... , `length` times: a graph with many nodes of known cost."""
    names = ["x", *(f"h{i}" for i in range(1, length)), "y"]
    nodes = [helper.make_node("MatMul", [a, "w"], [b]) for a, b in pairwise(names)]
    weights = numpy_helper.from_array(np.eye(size, dtype=np.float32), "w")
    border = [size if rows is None else rows, size]
    graph = model(nodes, [value("x", FLOAT, border)], [value("y", FLOAT, border)], [weights])
    return graph.SerializeToString()


def identities(dtypes: dict[str, int]) -> bytes:
    """One Identity per entry: input `in_<name>` and output `out_<name>`, shape [2, k]."""
    return model(
        [helper.make_node("Identity", [f"in_{name}"], [f"out_{name}"]) for name in dtypes],
        [value(f"in_{name}", dtype, [2, "k"]) for name, dtype in dtypes.items()],
        [value(f"out_{name}", dtype, [2, "k"]) for name, dtype in dtypes.items()],
    ).SerializeToString()


def save_with_external_data(folder: Path, weights: np.ndarray) -> Path:
    """y = x + weights, the weights in a file of their own beside the graph."""
    graph = model(
        [helper.make_node("Add", ["x", "w"], ["y"])],
        [value("x", FLOAT, weights.shape)],
        [value("y", FLOAT, weights.shape)],
        [numpy_helper.from_array(weights, "w")],
    )
    path = folder / "model.onnx"
    onnx.save_model(
        graph,
        str(path),
        save_as_external_data=True,
        location="weights.bin",
        size_threshold=0,
    )
    return path
