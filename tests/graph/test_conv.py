"""Convolutions in every form that the networks have, and those that stay what they are."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graph.running import compare, operators
from textopia_fast.graph.edit import attribute
from textopia_fast.graph.fusion import EARLY, LATE
from textopia_fast.graph.layout import to_channels_last

RNG = np.random.default_rng(6)
HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
ALL = [*EARLY, to_channels_last, *LATE]
FUSED = ["Transpose", "tx.Conv", "Transpose"]


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, np.float32)


def conv_graph(body: str, channels: int = 3) -> str:
    return f"{HEAD} g (float[b, {channels}, h, w] x) => (float[b, 5, p, q] y) {{ {body} }}"


@pytest.mark.parametrize(
    ("attributes", "kernel", "size"),
    [
        ("pads = [1, 1, 1, 1]", 3, (5, 7)),
        ("pads = [0, 0, 0, 0]", 1, (5, 7)),
        ("strides = [2, 2], pads = [1, 1, 1, 1]", 3, (5, 8)),
        ("strides = [2, 2], pads = [0, 0, 0, 0]", 1, (5, 8)),
        ("strides = [2, 2], pads = [0, 0, 1, 1]", 3, (6, 9)),
        ('group = 1, dilations = [1, 1], auto_pad = "NOTSET"', 1, (1, 1)),
    ],
)
def test_conv(attributes: str, kernel: int, size: tuple[int, int]) -> None:
    text = conv_graph(f"y = Conv<{attributes}>(x, k, bias)")
    stored = {"k": normal(5, 3, kernel, kernel), "bias": normal(5)}
    editor = compare(text, ALL, {"x": normal(2, 3, *size)}, **stored)
    assert operators(editor.graph) == FUSED


@pytest.mark.parametrize(
    ("attributes", "shape"),
    [
        ("pads = [2, 2, 2, 2]", (5, 3, 5, 5)),
        ("pads = [0, 1, 0, 1]", (5, 3, 1, 3)),
        ("pads = [2, 2, 2, 2], dilations = [2, 2]", (5, 3, 3, 3)),
        ("pads = [0, 0, 0, 0]", (5, 3, 3, 3)),
        ("strides = [3, 3], pads = [1, 1, 1, 1]", (5, 3, 3, 3)),
        ("strides = [1, 2], pads = [1, 1, 1, 1]", (5, 3, 3, 3)),
        ('auto_pad = "SAME_UPPER"', (5, 3, 3, 3)),
    ],
)
def test_other_convolutions_stay(attributes: str, shape: tuple[int, ...]) -> None:
    text = conv_graph(f"y = Conv<{attributes}>(x, k)")
    editor = compare(text, ALL, {"x": normal(1, 3, 6, 7)}, k=normal(*shape))
    assert operators(editor.graph) == ["Conv"]


def test_a_convolution_in_groups_stays() -> None:
    text = conv_graph("y = Conv<group = 5, pads = [1, 1, 1, 1]>(x, k)", channels=5)
    editor = compare(text, ALL, {"x": normal(1, 5, 4, 4)}, k=normal(5, 1, 3, 3))
    assert operators(editor.graph) == ["Conv"]


def test_padding_on_one_side() -> None:
    body = "p = Pad(x, sides, zero)\n y = Conv<strides = [2, 2], pads = [0, 0, 0, 0]>(p, k)"
    stored = {
        "k": normal(5, 3, 3, 3),
        "sides": np.array([0, 0, 0, 0, 0, 0, 1, 1]),
        "zero": np.float32(0),
    }
    editor = compare(conv_graph(body), ALL, {"x": normal(2, 3, 6, 8)}, **stored)
    assert operators(editor.graph) == FUSED
    assert attribute(editor.graph[1], "asymmetric_pad") == 1


@pytest.mark.parametrize(
    ("sides", "value"), [([0, 0, 1, 1, 0, 0, 0, 0], 0.0), ([0, 0, 0, 0, 0, 0, 1, 1], 0.5)]
)
def test_other_padding_stays(sides: list[int], value: float) -> None:
    body = "p = Pad(x, sides, zero)\n y = Conv<strides = [2, 2], pads = [0, 0, 0, 0]>(p, k)"
    stored = {"k": normal(5, 3, 3, 3), "sides": np.array(sides), "zero": np.float32(value)}
    editor = compare(conv_graph(body), ALL, {"x": normal(2, 3, 6, 8)}, **stored)
    assert operators(editor.graph) == ["Pad", "Conv"]


RESIZE = "u = Resize<{0}>(x, , scales)\n y = Conv<pads = [1, 1, 1, 1]>(u, k)"
NEAREST = 'mode = "nearest", coordinate_transformation_mode = "{0}", nearest_mode = "{1}"'


@pytest.mark.parametrize(
    ("place", "rounding", "is_fused"),
    [
        ("asymmetric", "floor", True),
        ("half_pixel", "round_prefer_floor", True),
        ("asymmetric", "ceil", False),
        ("align_corners", "round_prefer_floor", False),
    ],
)
def test_upsampling_before_a_convolution(place: str, rounding: str, is_fused: bool) -> None:
    body = RESIZE.format(NEAREST.format(place, rounding))
    stored = {"k": normal(5, 3, 3, 3), "scales": np.array([1, 1, 2, 2], np.float32)}
    editor = compare(conv_graph(body), ALL, {"x": normal(2, 3, 4, 3)}, **stored)
    found = operators(editor.graph)
    assert ("Resize" not in found) == is_fused
    assert "tx.Conv" in found


@pytest.mark.parametrize("scales", [[1, 1, 3, 3], [1, 1, 2, 1]])
def test_other_upsampling_stays(scales: list[int]) -> None:
    body = RESIZE.format(NEAREST.format("asymmetric", "floor"))
    stored = {"k": normal(5, 3, 3, 3), "scales": np.array(scales, np.float32)}
    editor = compare(conv_graph(body), ALL, {"x": normal(1, 3, 4, 3)}, **stored)
    assert "Resize" in operators(editor.graph)


def test_upsampling_before_a_1x1_convolution_stays() -> None:
    body = RESIZE.format(NEAREST.format("asymmetric", "floor")).replace("<pads = [1, 1, 1, 1]>", "")
    stored = {"k": normal(5, 3, 1, 1), "scales": np.array([1, 1, 2, 2], np.float32)}
    editor = compare(conv_graph(body), ALL, {"x": normal(1, 3, 4, 3)}, **stored)
    assert "Resize" in operators(editor.graph)


BLOCK = """
g (float[b, 4, h, w] x, float[b, 6] t) => (float[b, 4, h, w] y) {
    c = Conv<pads = [1, 1, 1, 1]>(x, k1)
    p = MatMul(t, m)
    axes = Constant<value_ints = [2, 3]>()
    spread = Unsqueeze(p, axes)
    s = Add(c, spread)
    d = Conv<pads = [1, 1, 1, 1]>(s, k2)
    y = Add(x, d)
}"""


def test_time_bias_and_residual_of_a_block() -> None:
    stored = {"k1": normal(4, 4, 3, 3), "k2": normal(4, 4, 3, 3), "m": normal(6, 4)}
    feeds = {"x": normal(2, 4, 3, 5), "t": normal(2, 6)}
    editor = compare(HEAD + BLOCK, ALL, feeds, **stored)
    found = operators(editor.graph)
    assert found.count("tx.Conv") == 2
    assert set(found) == {"Transpose", "tx.Conv", "tx.Linear"}
    first, second = (node for node in editor.graph if node.op_type == "Conv")
    assert first.inputs[3] is not None
    assert len(second.inputs) == 5


def test_one_row_of_time_for_several_images_is_added_apart() -> None:
    text = BLOCK.replace("float[b, 6] t", "float[1, 6] t")
    stored = {"k1": normal(4, 4, 3, 3), "k2": normal(4, 4, 3, 3), "m": normal(6, 4)}
    feeds = {"x": normal(2, 4, 3, 5), "t": normal(1, 6)}
    editor = compare(HEAD + text, ALL, feeds, **stored)
    assert "Add" in operators(editor.graph)


def test_skip_connections_join_the_last_axis() -> None:
    text = """
    g (float[b, 4, h, w] x) => (float[b, 4, h, w] y) {
        a = Conv<pads = [1, 1, 1, 1]>(x, k1)
        c = Conv<pads = [1, 1, 1, 1]>(a, k1)
        both = Concat<axis = 1>(c, a)
        y = Conv(both, k2)
    }"""
    stored = {"k1": normal(4, 4, 3, 3), "k2": normal(4, 8, 1, 1)}
    editor = compare(HEAD + text, ALL, {"x": normal(2, 4, 3, 5)}, **stored)
    assert operators(editor.graph) == [
        "Transpose",
        "tx.Conv",
        "tx.Conv",
        "Concat",
        "tx.Conv",
        "Transpose",
    ]
    assert attribute(editor.graph[3], "axis") == 3


def test_a_weight_that_is_computed_stays() -> None:
    text = """
    g (float[b, 3, h, w] x, float[5, 3, 3, 3] k) => (float[b, 5, p, q] y) {
        y = Conv<pads = [1, 1, 1, 1]>(x, k)
    }"""
    feeds = {"x": normal(1, 3, 4, 4), "k": normal(5, 3, 3, 3)}
    editor = compare(HEAD + text, ALL, feeds)
    assert operators(editor.graph) == ["Conv"]
