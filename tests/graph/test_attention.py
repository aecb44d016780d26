"""Attention as exporters write it, and products of that look which are something else."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graph.running import compare, editor_of, operators
from textopia_fast.graph.edit import attribute, input_of
from textopia_fast.graph.folding import fold
from textopia_fast.graph.fusion import EARLY, LATE
from textopia_fast.graph.layout import to_channels_last

RNG = np.random.default_rng(7)
ALL = [*EARLY, to_channels_last, *LATE]
CONSTANTS = (
    "<float scale = {{{scale}}}, int64[4] heads = {{0, 0, 3, 4}}, int64[3] joined = {{0, 0, 12}}>"
)


def head(opset: int = 17) -> str:
    return f'<ir_version: 8, opset_import: ["" : {opset}]>\n'


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, np.float32)


def graph(logits: str, inputs: str = "", scale: float = 0.5) -> str:
    """Three projected inputs with heads split, `logits` made of qh and kh, heads joined again."""
    return f"""
    g (float[b, s, 12] q, float[b, t, 12] k, float[b, t, 12] v{inputs}) => (float[b, s, 12] y)
    {CONSTANTS.format(scale=scale)} {{
        q4 = Reshape(q, heads)
        qh = Transpose<perm = [0, 2, 1, 3]>(q4)
        k4 = Reshape(k, heads)
        kh = Transpose<perm = [0, 2, 3, 1]>(k4)
        v4 = Reshape(v, heads)
        vh = Transpose<perm = [0, 2, 1, 3]>(v4)
        {logits}
        weights = Softmax<axis = -1>(logits)
        mixed = MatMul(weights, vh)
        back = Transpose<perm = [0, 2, 1, 3]>(mixed)
        y = Reshape(back, joined)
    }}"""


PRODUCT = "logits0 = MatMul(qh, kh)\n"
FEEDS = {"q": normal(2, 5, 12), "k": normal(2, 7, 12), "v": normal(2, 7, 12)}


@pytest.mark.parametrize(
    ("logits", "scale"),
    [
        (PRODUCT + "logits = Mul(logits0, scale)", 0.5),
        (PRODUCT + "logits = Div(logits0, scale)", 2.0),
        ("qs = Mul(qh, scale)\n ks = Mul(scale, kh)\n logits = MatMul(qs, ks)", 0.5**0.5),
    ],
)
def test_scaled_anywhere(logits: str, scale: float) -> None:
    editor = compare(head() + graph(logits, scale=scale), ALL, FEEDS)
    assert operators(editor.graph) == ["tx.Attention"]
    node = editor.graph[0]
    assert attribute(node, "heads") == 3
    assert attribute(node, "scale") == 0.0  # the usual one: 1 / sqrt(4)


def test_another_scale_is_kept() -> None:
    editor = compare(head() + graph("logits = MatMul(qh, kh)"), ALL, FEEDS)
    assert operators(editor.graph) == ["tx.Attention"]
    assert attribute(editor.graph[0], "scale") == pytest.approx(1.0)


@pytest.mark.parametrize("shape", [(2, 1, 5, 7), (1, 1, 1, 7), (5, 7), (1, 5, 7)])
def test_a_mask_that_all_heads_share(shape: tuple[int, ...]) -> None:
    sizes = {2: "b", 5: "s", 7: "t", 1: "1"}
    inputs = f", float[{', '.join(sizes[n] for n in shape)}] m"
    text = graph(PRODUCT + "l1 = Mul(logits0, scale)\n logits = Add(m, l1)", inputs)
    editor = compare(head() + text, ALL, {**FEEDS, "m": normal(*shape)})
    assert "tx.Attention" in operators(editor.graph)
    node = next(node for node in editor.graph if node.op_type == "Attention")
    assert input_of(node, 3) is not None


@pytest.mark.parametrize(
    ("logits", "inputs", "shape"),
    [
        # A mask for each head; a mask scaled with the logits.
        (
            PRODUCT + "l1 = Mul(logits0, scale)\n logits = Add(l1, m)",
            ", float[b, 3, s, t] m",
            (2, 3, 5, 7),
        ),
        (PRODUCT + "l1 = Add(logits0, m)\n logits = Mul(l1, scale)", ", float[s, t] m", (5, 7)),
        (PRODUCT + "logits = Mul(logits0, m)", ", float[s, t] m", (5, 7)),
    ],
)
def test_other_masks_stay(logits: str, inputs: str, shape: tuple[int, ...]) -> None:
    editor = compare(head() + graph(logits, inputs), ALL, {**FEEDS, "m": normal(*shape)})
    assert "tx.Attention" not in operators(editor.graph)
    assert "Softmax" in operators(editor.graph)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("qh = Transpose<perm = [0, 2, 1, 3]>", "qh = Transpose<perm = [0, 2, 3, 1]>"),
        ("Softmax<axis = -1>", "Softmax<axis = 2>"),
        ("q4 = Reshape(q, heads)", "q4 = Reshape(q, other)"),
    ],
)
def test_heads_split_in_another_way_stay(old: str, new: str) -> None:
    """Sizes chosen so that the graph is valid either way: only the order of elements differs."""
    text = graph(PRODUCT + "logits = Mul(logits0, scale)").replace(old, new)
    text = text.replace("int64[3] joined", "int64[4] other = {0, 4, 3, -1}, int64[3] joined")
    feeds = {"q": normal(2, 4, 12), "k": normal(2, 4, 12), "v": normal(2, 4, 12)}
    if "[0, 2, 3, 1]>(q4)" in text:
        text = text.replace("[b, s, 12] q", "[b, 4, 12] q").replace("[b, t, 12]", "[b, 4, 12]")
    editor = compare(head() + text, ALL, feeds)
    assert "Softmax" in operators(editor.graph)


def test_the_operator_with_four_axes() -> None:
    text = graph("").replace("\n        kh =", "\n        kx =")
    a, b = text.index("        weights ="), text.index("        back =")
    text = (
        text[:a]
        + "kh = Transpose<perm = [0, 2, 1, 3]>(k4)\n mixed = Attention(qh, kh, vh)\n"
        + text[b:]
    )
    editor = compare(head(23) + text, ALL, FEEDS)
    assert operators(editor.graph) == ["tx.Attention"]


@pytest.mark.parametrize("key_heads", [3, 1])
def test_the_operator_with_three_axes_stays(key_heads: int) -> None:
    """ONNX Runtime and the standard's text differ there in how heads are split."""
    width = 4 * key_heads
    text = f"""
    g (float[b, s, 12] q, float[b, t, {width}] k, float[b, t, {width}] v) => (float[b, s, 12] y) {{
        y = Attention<q_num_heads = 3, kv_num_heads = {key_heads}>(q, k, v)
    }}"""
    editor = editor_of(head(23) + text)
    for change in (fold, *ALL):
        change(editor)
    assert operators(editor.graph) == ["Attention"]


PROJECTED = """
g (float[b, s, 8] x, float[b, t, 6] c) => (float[b, s, 12] y)
<int64[4] heads = {0, 0, 3, 4}, int64[3] joined = {0, 0, 12}> {
    q = MatMul(x, wq)
    k0 = MatMul(SOURCE, wk)
    k = Add(k0, bk)
    v = MatMul(SOURCE, wv)
    q4 = Reshape(q, heads)
    qh = Transpose<perm = [0, 2, 1, 3]>(q4)
    k4 = Reshape(k, heads)
    kh = Transpose<perm = [0, 2, 3, 1]>(k4)
    v4 = Reshape(v, heads)
    vh = Transpose<perm = [0, 2, 1, 3]>(v4)
    logits = MatMul(qh, kh)
    weights = Softmax<axis = -1>(logits)
    mixed = MatMul(weights, vh)
    back = Transpose<perm = [0, 2, 1, 3]>(mixed)
    y = Reshape(back, joined)
}"""


@pytest.mark.parametrize(("source", "layers", "width"), [("x", 1, 8), ("c", 2, 6)])
def test_projections_are_computed_side_by_side(source: str, layers: int, width: int) -> None:
    """Q, K and V of self-attention are one layer; K and V of the prompt are one."""
    stored = {
        "wq": normal(8, 12),
        "wk": normal(width, 12),
        "wv": normal(width, 12),
        "bk": normal(12),
    }
    feeds = {"x": normal(2, 5, 8), "c": normal(2, 7, 6)}
    text = PROJECTED.replace("SOURCE", source)
    editor = compare(head() + text, ALL, feeds, **stored)
    assert operators(editor.graph) == ["tx.Linear"] * layers + ["tx.Attention"]


def test_a_projection_that_others_read_is_not_packed() -> None:
    text = PROJECTED.replace("SOURCE", "x").replace(
        "(float[b, s, 12] y)", "(float[b, s, 12] y, float[b, s, 12] v)"
    )
    stored = {"wq": normal(8, 12), "wk": normal(8, 12), "wv": normal(8, 12), "bk": normal(12)}
    feeds = {"x": normal(2, 5, 8), "c": normal(2, 7, 6)}
    editor = compare(head() + text, ALL, feeds, **stored)
    assert operators(editor.graph).count("tx.Linear") == 3


def test_heads_that_somebody_reads_apart() -> None:
    text = graph(PRODUCT + "logits = Mul(logits0, scale)").replace(
        "=> (float[b, s, 12] y)", "=> (float[b, s, 12] y, float[b, 3, s, 4] mixed)"
    )
    editor = compare(head() + text, ALL, FEEDS)
    assert "tx.Attention" in operators(editor.graph)
