"""Graphs made to hurt: the compiler ends soon, with a typed error or with the graph as it was."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from textopia_fast.errors import ModelFormatError, TextopiaError
from textopia_fast.graph.compile import Compiled, compile_graph
from textopia_fast.graph.targets import find_target

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
LIMIT_S = 30  # generous for a busy machine; without the bounds these never end


def compile_text(tmp_path: Path, text: str, role: str = "unet") -> Compiled:
    onnx.save(onnx.parser.parse_model(HEAD + text), tmp_path / "model.onnx")
    started = time.perf_counter()
    compiled = compile_graph(tmp_path / "model.onnx", role, find_target("reference"))
    assert time.perf_counter() - started < LIMIT_S
    return compiled


SIZE = """
    shape = Shape(x)
    at = Constant<value_ints = [0]>()
    s0 = Gather(shape, at)
    one = Constant<value_ints = [1]>()
    two = Constant<value_ints = [2]>()
"""


@pytest.mark.parametrize(
    "step",
    [
        "s{next} = Mul(s{this}, s{this})",
        "a{this} = Add(s{this}, one)\n s{next} = Mul(a{this}, s{this})",
        "a{this} = Add(s{this}, one)\n s{next} = Div(a{this}, two)",
        "a{this} = Add(s{this}, s{this})\n s{next} = Add(a{this}, one)",
    ],
)
def test_sizes_that_grow_without_end(tmp_path: Path, step: str) -> None:
    steps = "\n".join(step.format(this=i, next=i + 1) for i in range(400))
    text = f"g (float[b, 4] x) => (float[n] y) {{ {SIZE} {steps}\n y = ConstantOfShape(s400) }}"
    compiled = compile_text(tmp_path, text)
    assert compiled.graphs["body"].graph.num_nodes() > 0


def test_numbers_that_grow_without_end(tmp_path: Path) -> None:
    steps = "\n".join(f"s{i + 1} = Mul(s{i}, s{i})" for i in range(200))
    text = f"""g (float[b] x) => (float[n] y) {{
        s0 = Constant<value_ints = [3]>()
        {steps}
        y = ConstantOfShape(s200)
    }}"""
    compile_text(tmp_path, text)


def test_constants_that_fill_the_memory(tmp_path: Path) -> None:
    parts = "\n".join(f"c{i} = ConstantOfShape(size)\n y{i} = Add(x, c{i})" for i in range(30))
    outputs = ", ".join(f"float[n] y{i}" for i in range(30))
    text = (
        f"g (float[b] x) => ({outputs}) {{ size = Constant<value_ints = [4000000]>()\n {parts} }}"
    )
    compiled = compile_text(tmp_path, text)
    stored = sum(
        value.const_value.size for value in compiled.graphs["body"].graph.initializers.values()
    )
    assert stored <= 1 << 26


def test_a_weight_turned_a_thousand_times(tmp_path: Path) -> None:
    steps = "\n".join(f"w{i + 1} = Transpose<perm = [1, 0]>(w{i})" for i in range(1000))
    text = f"""
    g (float[b, 2] x) => (float[b, 2] y) <float[2, 2] w0 = {{1, 2, 3, 4}}> {{
        {steps}
        y = MatMul(x, w1000)
    }}"""
    compiled = compile_text(tmp_path, text)
    for value in compiled.graphs["body"].graph.initializers.values():
        np.asarray(value.const_value.numpy())


def test_a_long_chain_of_reshapes(tmp_path: Path) -> None:
    step = "a{0} = Transpose<perm = [1, 0, 2]>(v{0})\n v{1} = Reshape(a{0}, target)"
    steps = "\n".join(step.format(i, i + 1) for i in range(300))
    text = f"""
    g (float[b, c, 64] v0) => (float[n, m, k] y) {{
        target = Constant<value_ints = [-1, 8, 8]>()
        {steps}
        y = Relu(v300)
    }}"""
    compile_text(tmp_path, text, "vae_decoder")


def proto(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(HEAD + text)


def test_a_value_that_nothing_makes(tmp_path: Path) -> None:
    model = proto("g (float[b, 4] x) => (float[b, 4] y) { a = Relu(x)\n y = Relu(a) }")
    model.graph.node[1].input[0] = "nothing"
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelFormatError, match="nothing makes 'nothing'"):
        compile_graph(tmp_path / "model.onnx", "unet", find_target("reference"))


def test_malformed_graphs_end_in_typed_errors(tmp_path: Path) -> None:
    base = "g (float[b, 4] x) => (float[b, 4] y) { a = Relu(x)\n y = Relu(a) }"
    circle = proto(base)
    circle.graph.node[0].input[0] = "a"
    twice = proto(base)
    twice.graph.node[1].output[0] = "a"
    no_inputs = proto(base)
    del no_inputs.graph.node[1].input[:]
    odd_type = proto("g (float[b, 4] x) => (float[b, 4] y) { y = Transpose<perm = [1, 0]>(x) }")
    odd_type.graph.node[0].attribute[0].type = onnx.AttributeProto.STRING
    norm = proto("g (float[b, 4, n] x) => (float[b, 4, n] y) { y = InstanceNormalization(x) }")
    empty = proto("g (float[b, 4] x) => (float[b, 4] x) { }")
    for model in (circle, twice, no_inputs, odd_type, norm, empty):
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString())
        with contextlib.suppress(TextopiaError):  # anything else would fail the test
            compile_graph(path, "unet", find_target("cuda-bf16"))
