"""Lowering for CUDA, operator by operator: activations, biases, residuals, what has no kernel."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from tests.graph.running import (
    compare,
    editor_of,
    model_of,
    operators,
    run_compiled,
)
from textopia_fast.graph.edit import DOMAIN, Editor
from textopia_fast.graph.fusion import EARLY, LATE
from textopia_fast.graph.layout import to_channels_last
from textopia_fast.graph.lowering import lower

RNG = np.random.default_rng(4)
HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
PASSES = (*EARLY, to_channels_last, *LATE, lambda editor: lower(editor, narrow_resize=True))


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("activation", "written"),
    [
        ("s = Sigmoid(a)\n r = Mul(a, s)", ["Sigmoid", "Mul"]),
        ("m = Mul(a, c)\n s = Sigmoid(m)\n r = Mul(a, s)", ["Mul", "Sigmoid", "Mul"]),
        (
            "d = Div(a, root)\n f = Erf(d)\n p = Add(f, one)\n h = Mul(a, p)\n r = Mul(h, half)",
            ["Mul", "Erf", "Mul", "Add", "Mul"],
        ),
    ],
)
def test_a_linear_layer_with_activation_and_residual(activation: str, written: list[str]) -> None:
    text = f"""
    g (float[b, t, 6] x, float[b, t, 4] e) => (float[b, t, 4] y) {{
        p0 = MatMul(x, w)
        a = Add(p0, bias)
        {activation}
        y = Add(r, e)
    }}"""
    stored = {"w": normal(6, 4), "bias": normal(4), "c": np.float32(1.702)}
    stored |= {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}
    feeds = {"x": normal(2, 3, 6), "e": normal(2, 3, 4)}
    editor = compare(HEAD + text, PASSES, feeds, **stored)
    assert operators(editor.graph) == ["MatMul", "Add", *written, "Add"]


def test_geglu_and_a_convolution_with_upsampling() -> None:
    text = """
    g (float[b, 4, h, w] x, float[b, t, 6] t0) => (float[b, 5, p, q] y, float[b, t, 4] z) {
        u = Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric",
                   nearest_mode = "floor">(x, none, scales)
        y = Conv<pads = [1, 1, 1, 1]>(u, k, kb)
        l0 = MatMul(t0, m)
        l = Add(l0, mb)
        value, gate = Split<axis = 2>(l, halves)
        d = Div(gate, root)
        f = Erf(d)
        e = Add(f, one)
        h0 = Mul(gate, e)
        g0 = Mul(h0, half)
        z = Mul(value, g0)
    }""".replace("none", "")
    stored = {"k": normal(5, 4, 3, 3), "kb": normal(5), "m": normal(6, 8), "mb": normal(8)}
    stored |= {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}
    stored |= {"scales": np.array([1, 1, 2, 2], np.float32), "halves": np.array([4, 4])}
    feeds = {"x": normal(2, 4, 3, 5), "t0": normal(2, 3, 6)}
    editor = compare(HEAD + text, PASSES, feeds, **stored)
    found = operators(editor.graph)
    assert sorted(found) == sorted(
        ["Transpose", "Resize", "Transpose", "Conv", "MatMul", "Add", "tx.Geglu"]
    )


def test_a_time_bias_without_a_norm_is_added() -> None:
    text = """
    g (float[b, 4, h, w] x, float[b, 5] t) => (float[b, 5, h, w] y) {
        c = Conv<pads = [1, 1, 1, 1]>(x, k)
        axes = Constant<value_ints = [2, 3]>()
        u = Unsqueeze(t, axes)
        a = Add(c, u)
        y = Tanh(a)
    }"""
    editor = compare(
        HEAD + text, PASSES, {"x": normal(2, 4, 3, 5), "t": normal(2, 5)}, k=normal(5, 4, 3, 3)
    )
    assert operators(editor.graph).count("Add") == 1


# --- what has no kernel


def alone(op_type: str, inputs: dict[str, list], stored: dict, **attributes) -> Editor:
    """One fused operator in a graph of its own, lowered."""
    rank = len(next(iter(inputs.values())))
    declared = ", ".join(f"float{list(dims)} {name}" for name, dims in inputs.items())
    text = f"{HEAD} g ({declared}) => (float[{', '.join('abcde'[:rank])}] y) {{ y = Identity(x) }}"
    editor = editor_of(text.replace("'", ""), **stored)
    identity = editor.graph[0]
    values = {value.name: value for value in editor.graph.inputs}
    values |= dict(editor.graph.initializers)
    for value in values.values():
        value.meta.setdefault(
            "dims", tuple(value.shape.numpy()) if value.is_initializer() else None
        )
    order = [values[name] for name in (*inputs, *stored)]
    made = editor.fused(identity, op_type, *order, **attributes)
    editor.replace(identity.outputs[0], made)
    editor.prune()
    return editor


@pytest.mark.parametrize("shape", [(2, 3, 5, 516), (2, 7, 516)])
@pytest.mark.parametrize("activation", ["", "silu"])
def test_groups_that_are_too_wide(shape: tuple[int, ...], activation: str) -> None:
    stored = {"gamma": normal(516), "beta": normal(516)}
    names = ["b", *"hw"[: len(shape) - 2], 516]
    made = {"groups": 4, "epsilon": 1e-5, "activation": activation}
    check_written_out("GroupNorm", {"x": names}, stored, made, {"x": normal(*shape) + 3}, "129 ch")


def test_a_layer_norm_that_is_too_wide() -> None:
    stored = {"gamma": normal(2050), "beta": normal(2050)}
    feeds = {"x": normal(2, 3, 2050) + 3}
    made = {"epsilon": 1e-5}
    check_written_out("LayerNorm", {"x": ["b", "s", 2050]}, stored, made, feeds, "2050 channels")


@pytest.mark.parametrize("packed", [1, 2, 3])
def test_heads_of_another_width(packed: int) -> None:
    """With a mask, too; queries, keys and values apart and side by side."""
    feeds = {"x": normal(2, 3, 36 if packed == 3 else 12)}
    if packed < 3:
        feeds["k"] = normal(2, 5, 24 if packed == 2 else 12)
    if packed == 1:
        feeds |= {"v": normal(2, 5, 12), "m": normal(2, 1, 1, 5)}
    dims = {"x": ["b", "s"], "k": ["b", "n"], "v": ["b", "n"], "m": ["b", 1, 1]}
    inputs = {name: [*dims[name], array.shape[-1]] for name, array in feeds.items()}
    if packed == 1:
        inputs["m"] = ["b", 1, 1, "n"]
    made = {"heads": 2, "scale": 0.3, "causal": 0}
    reason = "head width 6 with a mask" if packed == 1 else "head width 6,"
    check_written_out("Attention", inputs, {}, made, feeds, reason)


def check_written_out(
    op_type: str, inputs: dict, stored: dict, attributes: dict, feeds: dict, reason: str
) -> None:
    editor = alone(op_type, inputs, stored, **attributes)
    before = run_compiled(model_of(editor), feeds)["y"]
    lower(editor, narrow_resize=True)
    assert not any(node.domain == DOMAIN for node in editor.graph)
    assert all(reason in node.meta["reason"] for node in editor.graph)
    after = run_compiled(model_of(editor), feeds)["y"]
    np.testing.assert_allclose(after, before, rtol=0, atol=2e-5 * np.abs(before).max())


def test_the_largest_id_is_looked_for_among_floats() -> None:
    text = HEAD + "g (int64[b, t] x) => (int64[b] y) { y = ArgMax<axis = 1, keepdims = 0>(x) }"
    editor = compare(text, PASSES, {"x": np.array([[1, 49407, 7], [9, 2, 3]])})
    assert operators(editor.graph) == ["Cast", "ArgMax"]
    assert editor.graph[0].attributes["to"].value == ir.DataType.FLOAT
