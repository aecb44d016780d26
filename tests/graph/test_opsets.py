"""Operator sets: what can be restated means the same, what cannot stays."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.graph.running import editor_of, model_of, run_export
from textopia_fast.graph.compile import compile_graph
from textopia_fast.graph.opsets import restate
from textopia_fast.graph.targets import find_target

RNG = np.random.default_rng(5)
X = RNG.standard_normal((2, 4, 6)).astype(np.float32)


def head(version: int) -> str:
    return f'<ir_version: 8, opset_import: ["" : {version}]>\n'


@pytest.mark.parametrize("version", [18, 22])
def test_older_forms_get_their_inputs(version: int) -> None:
    text = """g (float[b, c, 6] x) => (float[b, 1, 6] y, float[b, c, 3] p, float[b, c, 3] q) {
        y = ReduceMean<axes = [1]>(x)
        p, q = Split<axis = 2>(x)
    }"""
    editor = editor_of(head(13) + text)
    assert restate(editor, version)
    model = onnx.ModelProto()
    model.ParseFromString(__import__("onnx_ir").to_proto(model_of(editor)).SerializeToString())
    assert model.opset_import[0].version == version
    expected = run_export(onnx.parser.parse_model(head(13) + text), {"x": X})
    for want, got in zip(expected, run_export(model, {"x": X}), strict=True):
        np.testing.assert_array_equal(got, want)


def test_a_cast_loses_what_only_newer_sets_know() -> None:
    text = "g (float[b] x) => (int64[b] y) { y = Cast<to = 7, saturate = 1>(x) }"
    editor = editor_of(head(23) + text)
    assert restate(editor, 18)
    assert set(editor.graph[0].attributes) == {"to"}


def test_a_changed_meaning_stays() -> None:
    text = "g (float[b, 4] x) => (float[b, 4] y) { y = Gelu(x) }"
    editor = editor_of(head(20) + text)
    assert not restate(editor, 18)
    assert editor.graph.opset_imports[""] == 20


def test_convolutions_beside_it_compute_in_float32(tmp_path) -> None:
    """Hardmax means what it did, but nobody has looked: set 22 is not written."""
    text = """g (float[b, 4, h, w] x) => (float[b, 5, h, w] y) {
        c = Conv<pads = [1, 1, 1, 1]>(x, k)
        y = Hardmax<axis = 1>(c)
    }"""
    model = onnx.parser.parse_model(head(17) + text)
    kernel = RNG.standard_normal((5, 4, 3, 3)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(kernel, "k"))
    onnx.save(model, tmp_path / "model.onnx")
    types = {}
    for name in ("cuda-fp16", "cuda-bf16"):
        compiled = compile_graph(tmp_path / "model.onnx", "model", find_target(name))
        conv = next(n for n in compiled.graphs["model"].graph if n.op_type == "Conv")
        types[name] = conv.inputs[1].dtype.name, compiled.graphs["model"].opset_imports[""]
    assert types == {"cuda-fp16": ("FLOAT16", 17), "cuda-bf16": ("FLOAT", 17)}
    reasons = [left.reason for left in compiled.coverage.leftovers if left.op == "Conv"]
    assert reasons == ["no bfloat16 in operator set 17"]
