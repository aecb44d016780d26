"""GroupNorm, LayerNorm and activations out of their pieces, and look-alikes that are left alone."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graph.running import compare, operators
from textopia_fast.graph.edit import Editor, attribute
from textopia_fast.graph.fusion import EARLY, LATE, activations, group_norm, layer_norm
from textopia_fast.graph.layout import to_channels_last

RNG = np.random.default_rng(3)
ALL = [*EARLY, to_channels_last, *LATE]


def head(opset: int = 17) -> str:
    return f'<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1]>\n'


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, np.float32)


GROUPS = """
g (float[b, 6, h, w] x) => (float[b, 6, h, w] y) {
    shape = Shape(x)
    grouped = Constant<value_ints = [0, 3, -1]>()
    r = Reshape(x, grouped)
    n = InstanceNormalization<epsilon = 0.01>(r, ones, zeros)
    back = Reshape(n, shape)
    scaled = Mul(back, gamma)
    y = Add(scaled, beta)
}"""
ONES = {"ones": np.ones(3, np.float32), "zeros": np.zeros(3, np.float32)}


def test_group_norm_around_instance_normalization() -> None:
    stored = {**ONES, "gamma": normal(6, 1, 1), "beta": normal(1, 6, 1, 1)}
    editor = compare(head() + GROUPS, [group_norm.fuse], {"x": normal(2, 6, 3, 5)}, **stored)
    assert operators(editor.graph) == ["Transpose", "tx.GroupNorm", "Transpose"]
    node = editor.graph[1]
    assert attribute(node, "groups") == 3
    assert attribute(node, "epsilon") == pytest.approx(0.01)


def test_scales_of_the_groups_are_taken_in() -> None:
    stored = {
        "ones": normal(3),
        "zeros": normal(3),
        "gamma": normal(6, 1, 1),
        "beta": normal(6, 1, 1),
    }
    editor = compare(head() + GROUPS, [group_norm.fuse], {"x": normal(2, 6, 3, 5)}, **stored)
    assert "tx.GroupNorm" in operators(editor.graph)


@pytest.mark.parametrize("shape", [(5,), (6, 3, 1), (2, 1, 1, 1)])
def test_a_scale_that_is_not_per_channel_stays(shape: tuple[int, ...]) -> None:
    stored = {**ONES, "gamma": normal(*shape), "beta": normal(6, 1, 1)}
    editor = compare(head() + GROUPS, [group_norm.fuse], {"x": normal(2, 6, 3, 5)}, **stored)
    assert {"tx.GroupNorm", "Mul", "Add"} <= set(operators(editor.graph))


@pytest.mark.parametrize(("opset", "count"), [(18, 3), (21, 6)])
def test_group_normalization(opset: int, count: int) -> None:
    text = """
    g (float[b, 6, n] x) => (float[b, 6, n] y) {
        y = GroupNormalization<num_groups = 3, epsilon = 0.1>(x, scale, shift)
    }"""
    stored = {"scale": normal(count), "shift": normal(count)}
    editor = compare(head(opset) + text, [group_norm.fuse], {"x": normal(2, 6, 7)}, **stored)
    assert operators(editor.graph) == ["Transpose", "tx.GroupNorm", "Transpose"]


def test_an_instance_norm_alone_is_none() -> None:
    text = "g (float[b, 3, n] x) => (float[b, 3, n] y) { y = InstanceNormalization(x, s, z) }"
    stored = {"s": normal(3), "z": normal(3)}
    editor = compare(head() + text, ALL, {"x": normal(2, 3, 7)}, **stored)
    assert operators(editor.graph) == ["InstanceNormalization"]


def test_silu_behind_a_group_norm_is_taken_in() -> None:
    text = GROUPS.replace(
        "y = Add(scaled, beta)", "n2 = Add(scaled, beta)\n s = Sigmoid(n2)\n y = Mul(n2, s)"
    )
    stored = {**ONES, "gamma": normal(6, 1, 1), "beta": normal(6, 1, 1)}
    editor = compare(head() + text, ALL, {"x": normal(1, 6, 4, 4)}, **stored)
    assert operators(editor.graph) == ["Transpose", "tx.GroupNorm", "Transpose"]
    assert attribute(editor.graph[1], "activation") == "silu"


def test_a_norm_that_others_read_keeps_its_activation_apart() -> None:
    text = GROUPS.replace("=> (", "=> (float[b, 6, h, w] n2, ").replace(
        "y = Add(scaled, beta)", "n2 = Add(scaled, beta)\n s = Sigmoid(n2)\n y = Mul(n2, s)"
    )
    stored = {**ONES, "gamma": normal(6, 1, 1), "beta": normal(6, 1, 1)}
    editor = compare(head() + text, ALL, {"x": normal(1, 6, 4, 4)}, **stored)
    assert {"tx.GroupNorm", "Sigmoid", "Mul"} <= set(operators(editor.graph))


LAYER = """
g (float[b, t, 8] x) => (float[b, t, 8] y) <float two = {2}, float eps = {0.001}> {
    mean = ReduceMean<axes = [-1]>(x)
    d = Sub(x, mean)
    sq = Pow(d, two)
    var = ReduceMean<axes = [-1]>(sq)
    v = Add(var, eps)
    root = Sqrt(v)
    n = Div(d, root)
    scaled = Mul(n, gamma)
    y = Add(scaled, beta)
}"""


def test_layer_norm_in_pieces() -> None:
    stored = {"gamma": normal(8), "beta": normal(8)}
    editor = compare(head(14) + LAYER, [layer_norm.fuse], {"x": normal(2, 3, 8)}, **stored)
    assert operators(editor.graph) == ["tx.LayerNorm"]
    assert attribute(editor.graph[0], "epsilon") == pytest.approx(0.001)


def test_layer_norm_without_scales() -> None:
    text = LAYER.replace("n = Div", "y = Div").split("    scaled")[0] + "}"
    editor = compare(head(14) + text, [layer_norm.fuse], {"x": normal(2, 3, 8)})
    assert operators(editor.graph) == ["tx.LayerNorm"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ReduceMean<axes = [-1]>(x)", "ReduceMean<axes = [1]>(x)"),
        ("ReduceMean<axes = [-1]>(sq)", "ReduceMean<axes = [0, 2]>(sq)"),
        ("two = {2}", "two = {4}"),
        ("Sub(x, mean)", "Sub(mean, x)"),
    ],
)
def test_what_only_looks_like_a_layer_norm(old: str, new: str) -> None:
    stored = {"gamma": normal(8), "beta": normal(8)}
    text = LAYER.replace(old, new)
    editor = compare(head(14) + text, ALL, {"x": normal(2, 3, 8)}, atol=1e-4, **stored)
    assert not any(name.startswith("tx.") for name in operators(editor.graph))


def test_a_layer_norm_over_two_axes_stays() -> None:
    text = (
        "g (float[b, 3, 8] x) => (float[b, 3, 8] y) { y = LayerNormalization<axis = 1>(x, s, z) }"
    )
    stored = {"s": normal(3, 8), "z": normal(3, 8)}
    editor = compare(head() + text, ALL, {"x": normal(2, 3, 8)}, **stored)
    assert operators(editor.graph) == ["LayerNormalization"]


def fused_names(editor: Editor) -> list[str]:
    return [node.op_type for node in editor.graph if node.domain == activations.INTERNAL]


GELU = {
    "x * 0.5 last": "e = Erf(d)\n a = Add(e, one)\n p = Mul(x, a)\n y = Mul(p, half)",
    "half of x first": "hx = Mul(x, half)\n e = Erf(d)\n a = Add(one, e)\n y = Mul(hx, a)",
    "half of the sum": "e = Erf(d)\n a = Add(e, one)\n p = Mul(a, half)\n y = Mul(p, x)",
}


@pytest.mark.parametrize("order", GELU)
def test_gelu_in_any_order(order: str) -> None:
    numbers = "<float one = {1}, float half = {0.5}, float r = {1.41421356}>"
    text = f"""
    g (float[n] x) => (float[n] y) {numbers} {{
        d = Div(x, r)
        {GELU[order]}
    }}"""
    found: list[str] = []
    passes = [activations.fuse, lambda editor: found.extend(fused_names(editor)), activations.lower]
    compare(head() + text, passes, {"x": np.linspace(-5, 5, 41, dtype=np.float32)})
    assert found == ["Gelu"]


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ("s = Sigmoid(x)\n y = Mul(x, s)", "Silu"),
        ("k = Mul(x, q)\n s = Sigmoid(k)\n y = Mul(s, x)", "QuickGelu"),
        ("y = com.microsoft.QuickGelu<alpha = 1.702>(x)", "QuickGelu"),
        ("y = com.microsoft.Gelu(x)", "Gelu"),
    ],
)
def test_the_other_activations(body: str, name: str) -> None:
    text = f"g (float[n] x) => (float[n] y) <float q = {{1.702}}> {{ {body} }}"
    found: list[str] = []
    passes = [activations.fuse, lambda editor: found.extend(fused_names(editor)), activations.lower]
    compare(head() + text, passes, {"x": np.linspace(-5, 5, 41, dtype=np.float32)})
    assert found == [name]


@pytest.mark.parametrize(
    "body",
    [
        "s = Sigmoid(x)\n y = Mul(z, s)",
        "k = Mul(x, q)\n s = Sigmoid(k)\n y = Mul(s, z)",
        "d = Div(x, q)\n e = Erf(d)\n a = Add(e, q)\n p = Mul(x, a)\n y = Mul(p, q)",
    ],
)
def test_what_only_looks_like_an_activation(body: str) -> None:
    text = f"g (float[n] x, float[n] z) => (float[n] y) <float q = {{1.5}}> {{ {body} }}"
    found: list[str] = []
    passes = [activations.fuse, lambda editor: found.extend(fused_names(editor)), activations.lower]
    compare(head() + text, passes, {"x": normal(9), "z": normal(9)})
    assert found == []


def test_one_activation_serves_all_who_repeat_it() -> None:
    text = """
    g (float[n] x) => (float[n] y, float[n] z) {
        s = Sigmoid(x)
        y = Mul(x, s)
        t = Sigmoid(x)
        z2 = Mul(x, t)
        z = Neg(z2)
    }"""
    editor = compare(head() + text, [activations.fuse, activations.lower], {"x": normal(9)})
    assert operators(editor.graph).count("Sigmoid") == 1
