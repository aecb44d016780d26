"""Graphs at known sizes: nothing computes sizes any more, and the result is the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.graph.running import inputs_of, run_compiled
from tests.graph.test_exports import path_of
from textopia_fast.graph.compile import compile_graph
from textopia_fast.graph.engine import write_graphs
from textopia_fast.graph.fixed import with_sizes
from textopia_fast.graph.targets import find_target

ON_THE_HOST = {"Shape", "Size", "NonZero", "Gather", "Div", "Range", "ConstantOfShape"}
SIZES = {"batch_size": 2, "height": 8, "width": 12, "sequence_length": 5}


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    target = find_target("cuda-fp16")
    compiled = compile_graph(path_of("unet_dynamo_23"), "unet", target)
    return write_graphs(compiled, tmp_path_factory.mktemp("graphs"))


def names_of(path: Path) -> list[str]:
    graph = onnx.load(path, load_external_data=False).graph
    return [
        dim.dim_param
        for value in graph.input
        for dim in value.type.tensor_type.shape.dim
        if dim.dim_param
    ]


def test_a_body_without_sizes_to_compute(graphs: dict[str, Path]) -> None:
    body = onnx.load(graphs["body"], load_external_data=False)
    assert "Shape" in {node.op_type for node in body.graph.node}
    numbers = dict(zip(dict.fromkeys(names_of(graphs["body"])), (2, 8, 12, 5), strict=True))
    fixed = onnx.load_from_string(with_sizes(graphs["body"], numbers))
    assert not ON_THE_HOST & {node.op_type for node in fixed.graph.node}
    assert all(
        dim.HasField("dim_value")
        for value in fixed.graph.input
        for dim in value.type.tensor_type.shape.dim
    )
    made = {name for node in fixed.graph.node for name in node.output}
    kept = {tensor.name for tensor in fixed.graph.initializer}
    assert not made & kept
    # The weights are those of the file, which is not read.
    places = {tensor.name for tensor in fixed.graph.initializer if tensor.external_data}
    assert places <= {tensor.name for tensor in body.graph.initializer}


def test_the_same_result(tmp_path: Path) -> None:
    compiled = compile_graph(path_of("vae_encoder_17"), "vae_encoder", find_target("reference"))
    path = write_graphs(compiled, tmp_path)["model"]
    feeds = inputs_of("vae_encoder_17", 1, 16, 24, 0)
    numbers = dict(zip(dict.fromkeys(names_of(path)), (1, 16, 24), strict=True))
    proto = onnx.load_from_string(with_sizes(path, numbers))
    onnx.external_data_helper.load_external_data_for_model(proto, str(tmp_path))
    (found,) = run_compiled(ir.from_proto(proto), feeds).values()
    (wanted,) = run_compiled(compiled.graphs["model"], feeds).values()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)


def test_some_sizes_may_stay_free(graphs: dict[str, Path]) -> None:
    name = names_of(graphs["body"])[0]
    fixed = onnx.load_from_string(with_sizes(graphs["body"], {name: 2}))
    assert "Shape" in {node.op_type for node in fixed.graph.node}


def test_sizes_of_other_graphs_do_not_matter(graphs: dict[str, Path]) -> None:
    assert with_sizes(graphs["body"], {"depth": 3}) == with_sizes(graphs["body"], {})


def test_a_size_without_a_name(graphs: dict[str, Path], tmp_path: Path) -> None:
    model = onnx.load(graphs["body"], load_external_data=False)
    first = model.graph.input[0]
    first.type.tensor_type.shape.dim[2].Clear()
    path = tmp_path / "body.onnx"
    onnx.save(model, path)
    fixed = onnx.load_from_string(with_sizes(path, {f"{first.name}.2": 8}))
    assert fixed.graph.input[0].type.tensor_type.shape.dim[2].dim_value == 8
