"""Linear layers, GEGLU, and layers of one input computed side by side."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graph.running import compare, operators
from textopia_fast.graph.edit import attribute
from textopia_fast.graph.fusion import EARLY, LATE, activations, linear
from textopia_fast.graph.layout import to_channels_last

RNG = np.random.default_rng(5)
HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
ALL = [*EARLY, to_channels_last, *LATE]


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, np.float32)


def test_a_matrix_and_its_bias() -> None:
    text = "g (float[b, t, 6] x) => (float[b, t, 4] y) { p = MatMul(x, w)\n y = Add(bias, p) }"
    stored = {"w": normal(6, 4), "bias": normal(4)}
    editor = compare(HEAD + text, [linear.fuse], {"x": normal(2, 3, 6)}, **stored)
    assert operators(editor.graph) == ["tx.Linear"]
    node = editor.graph[0]
    assert (attribute(node, "in_features"), attribute(node, "out_features")) == (6, 4)
    np.testing.assert_array_equal(node.inputs[1].const_value.numpy(), stored["w"].T)


@pytest.mark.parametrize(("transposed", "shape"), [(0, (6, 4)), (1, (4, 6))])
def test_gemm(transposed: int, shape: tuple[int, int]) -> None:
    text = f"g (float[b, 6] x) => (float[b, 4] y) {{ y = Gemm<transB = {transposed}>(x, w, c) }}"
    stored = {"w": normal(*shape), "c": normal(4)}
    editor = compare(HEAD + text, [linear.fuse], {"x": normal(3, 6)}, **stored)
    assert operators(editor.graph) == ["tx.Linear"]


@pytest.mark.parametrize(
    "body",
    [
        "y = Gemm<alpha = 0.5>(x, w, c)",
        "y = Gemm<beta = 2.0>(x, w, c)",
        "t = Transpose<perm = [1, 0]>(x)\n y = Gemm<transA = 1>(t, w, c)",
    ],
)
def test_other_products_stay(body: str) -> None:
    text = f"g (float[b, 6] x) => (float[b, 4] y) {{ {body} }}"
    editor = compare(HEAD + text, ALL, {"x": normal(3, 6)}, w=normal(6, 4), c=normal(4))
    assert operators(editor.graph)[-1] == "Gemm"


RESIDUAL = """
g (float[b, t, 6] x, float[{rows}, t, 4] r) => (float[b, t, 4] y) {{
    p = MatMul(x, w)
    y = Add(p, r)
}}"""


def test_a_sum_that_is_no_bias_becomes_a_residual() -> None:
    text = RESIDUAL.format(rows="b")
    feeds = {"x": normal(2, 3, 6), "r": normal(2, 3, 4)}
    editor = compare(HEAD + text, ALL, feeds, w=normal(6, 4))
    assert operators(editor.graph) == ["tx.Linear"]
    assert editor.graph[0].inputs[3] is editor.graph.inputs[1]


def test_a_residual_that_broadcasts_is_added_apart() -> None:
    text = RESIDUAL.format(rows="1")
    feeds = {"x": normal(2, 3, 6), "r": normal(1, 3, 4)}
    editor = compare(HEAD + text, ALL, feeds, w=normal(6, 4))
    assert operators(editor.graph) == ["tx.Linear", "Add"]


def test_a_result_that_others_read_keeps_its_sum_apart() -> None:
    text = """
    g (float[b, 2, 6] x, float[b, 2, 4] r) => (float[b, 2, 4] p, float[b, 2, 4] y) {
        p = MatMul(x, w)
        y = Add(p, r)
    }"""
    feeds = {"x": normal(2, 2, 6), "r": normal(2, 2, 4)}
    editor = compare(HEAD + text, ALL, feeds, w=normal(6, 4))
    assert operators(editor.graph) == ["tx.Linear", "Add"]


def test_two_layers_that_are_added() -> None:
    text = """
    g (float[b, 2, 6] x) => (float[b, 2, 4] y) {
        p = MatMul(x, w)
        q = MatMul(x, v)
        y = Add(p, q)
    }"""
    editor = compare(HEAD + text, ALL, {"x": normal(2, 2, 6)}, w=normal(6, 4), v=normal(6, 4))
    assert operators(editor.graph) == ["tx.Linear", "tx.Linear"]


def test_the_activation_comes_before_the_residual() -> None:
    text = """
    g (float[b, 2, 6] x, float[b, 2, 4] r) => (float[b, 2, 4] y) {
        p = MatMul(x, w)
        s = Sigmoid(p)
        a = Mul(p, s)
        y = Add(a, r)
    }"""
    feeds = {"x": normal(2, 2, 6), "r": normal(2, 2, 4)}
    editor = compare(HEAD + text, ALL, feeds, w=normal(6, 4))
    assert operators(editor.graph) == ["tx.Linear"]
    assert attribute(editor.graph[0], "activation") == "silu"


def test_an_activation_after_the_residual_stays_apart() -> None:
    text = """
    g (float[b, 2, 6] x, float[b, 2, 4] r) => (float[b, 2, 4] y) {
        p = MatMul(x, w)
        a = Add(p, r)
        s = Sigmoid(a)
        y = Mul(a, s)
    }"""
    feeds = {"x": normal(2, 2, 6), "r": normal(2, 2, 4)}
    editor = compare(HEAD + text, ALL, feeds, w=normal(6, 4))
    assert operators(editor.graph) == ["tx.Linear", "Sigmoid", "Mul"]


ERF = "d = Div(gate, r)\n e = Erf(d)\n a = Add(e, one)\n m = Mul(gate, a)\n u = Mul(m, half)\n"
NUMBERS = "<float one = {1}, float half = {0.5}, float r = {1.41421356}, int64[1] last = {-1}, "
NUMBERS += "int64[1] n = {0}, int64[1] h = {5}, int64[1] w2 = {10}>"
GATED = f"""
g (float[b, t, 6] x) => (float[b, t, 5] y) {NUMBERS} {{
    p = MatMul(x, w)
    pb = Add(p, bias)
    value = Slice(pb, n, h, last)
    gate = Slice(pb, h, w2, last)
    {ERF}
    y = Mul(value, u)
}}"""


@pytest.mark.parametrize("form", ["slices", "split"])
def test_geglu(form: str) -> None:
    text = GATED
    if form == "split":
        a, b = text.index("    value ="), text.index("    d = Div")
        text = text[:a] + "value, gate = Split<axis = -1>(pb)\n" + text[b:]
    editor = compare(HEAD + text, ALL, {"x": normal(2, 3, 6)}, w=normal(6, 10), bias=normal(10))
    assert operators(editor.graph) == ["tx.LinearGeglu"]
    assert attribute(editor.graph[0], "out_features") == 5


@pytest.mark.parametrize(
    ("old", "new"),
    [
        # The halves in the other order: gate first, as some models have it.
        ("y = Mul(value, u)", "v3 = Slice(pb, h, w2, last)\n y = Mul(v3, u)"),
        ("value = Slice(pb, n, h, last)", "value = Slice(pb, h, w2, last)"),
        ("gate = Slice(pb, h, w2, last)", "gate = Slice(pb, n, h, last)"),
    ],
)
def test_other_halves_are_not_geglu(old: str, new: str) -> None:
    text = GATED.replace(old, new)
    editor = compare(HEAD + text, ALL, {"x": normal(2, 3, 6)}, w=normal(6, 10), bias=normal(10))
    assert "tx.LinearGeglu" not in operators(editor.graph)
    assert "tx.Linear" in operators(editor.graph)


def test_a_gate_of_another_layer_is_not_geglu() -> None:
    text = GATED.replace("gate = Slice(pb,", "p3 = MatMul(x, w)\n gate = Slice(p3,")
    editor = compare(HEAD + text, ALL, {"x": normal(2, 3, 6)}, w=normal(6, 10), bias=normal(10))
    assert "tx.LinearGeglu" not in operators(editor.graph)


def test_activations_of_layers() -> None:
    text = "g (float[b, 6] x) => (float[b, 4] y) { p = MatMul(x, w)\n y = Relu(p) }"
    passes = [activations.fuse, *ALL]
    editor = compare(HEAD + text, passes, {"x": normal(3, 6)}, w=normal(6, 4))
    assert operators(editor.graph) == ["tx.Linear", "Relu"]
