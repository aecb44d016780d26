"""Chains of Reshape and Transpose, and layouts that meet in the middle."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graph.running import compare, editor_of, operators
from textopia_fast.graph.dims import Dim
from textopia_fast.graph.edit import attribute
from textopia_fast.graph.folding import fold
from textopia_fast.graph.layout import to_channels_last
from textopia_fast.graph.movement import chains_to, same_order

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
B, S = Dim.symbol("b"), Dim.symbol("s")


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape, np.float32)


def test_a_chain_is_judged_by_what_it_moves() -> None:
    text = """
    g (float[b, s, 12] x) => (float[n, s, 4] y) <int64[4] heads = {0, 0, 3, 4}> {
        split = Reshape(x, heads)
        turned = Transpose<perm = [0, 2, 1, 3]>(split)
        y0 = Reshape(turned, heads2)
        y = Identity(y0)
    }"""
    editor = editor_of(HEAD + text.replace("heads2", "same"), same=np.array([0, 0, -1, 4]))
    fold(editor)
    end = editor.graph.outputs[0]
    *_, longest = chains_to(end)
    assert longest.source is editor.graph.inputs[0]
    split = [("reshape", (B, S, 3, 4)), ("transpose", (0, 2, 1, 3))]
    assert same_order(longest, split)
    assert not same_order(longest, [("reshape", (B, 3, S, 4))])  # of the same sizes
    assert not same_order(longest, [("reshape", (B, S, 4, 3)), ("transpose", (0, 3, 1, 2))])
    assert not same_order(longest, [("reshape", (B, S, 5, 4))])  # that do not fit


@pytest.mark.parametrize("size", [(2, 3), (4, 4)])
def test_an_image_to_tokens_and_back_moves_nothing(size: tuple[int, int]) -> None:
    """As the attention of a VAE does it, between two layers that want the channels last."""
    text = """
    g (float[b, h, w, 6] x) => (float[b, h, w, 6] y) <int64[3] flat = {0, 6, -1}> {
        image = Transpose<perm = [0, 3, 1, 2]>(x)
        shape = Shape(image)
        rows = Reshape(image, flat)
        tokens = Transpose<perm = [0, 2, 1]>(rows)
        act = Softmax<axis = -1>(tokens)
        back = Transpose<perm = [0, 2, 1]>(act)
        again = Reshape(back, shape)
        y = Transpose<perm = [0, 2, 3, 1]>(again)
    }"""
    editor = compare(HEAD + text, [to_channels_last], {"x": normal(2, *size, 6)})
    assert "Transpose" not in operators(editor.graph)
    assert operators(editor.graph).count("Reshape") == 2


def test_transposes_pass_through_what_does_not_care() -> None:
    text = """
    g (float[b, h, w, 4] x) => (float[b, p, q, 4] y)
    <float[4, 1, 1] bias = {1, 2, 3, 4}, float half = {0.5}> {
        image = Transpose<perm = [0, 3, 1, 2]>(x)
        a = Add(image, bias)
        m = Mul(a, half)
        r = Relu(m)
        c = Concat<axis = 1>(r, image)
        first, second = Split<axis = 1>(c)
        s = Sub(first, second)
        y = Transpose<perm = [0, 2, 3, 1]>(s)
    }"""
    editor = compare(HEAD + text, [to_channels_last], {"x": normal(2, 3, 5, 4)})
    found = operators(editor.graph)
    assert "Transpose" not in found
    axes = [attribute(node, "axis") for node in editor.graph if node.op_type in ("Concat", "Split")]
    assert axes == [3, 3]


def test_slices_of_channels() -> None:
    text = """
    g (float[b, h, w, 4] x) => (float[b, h, w, 2] y)
    <int64[1] begin = {1}, int64[1] end = {3}, int64[1] axis = {1}> {
        image = Transpose<perm = [0, 3, 1, 2]>(x)
        part = Slice(image, begin, end, axis)
        y = Transpose<perm = [0, 2, 3, 1]>(part)
    }"""
    editor = compare(HEAD + text, [to_channels_last], {"x": normal(2, 3, 5, 4)})
    assert operators(editor.graph) == ["Slice"]


def test_what_cares_for_the_order_keeps_it() -> None:
    text = """
    g (float[b, h, w, 4] x) => (float[b, h, w, 4] y) {
        image = Transpose<perm = [0, 3, 1, 2]>(x)
        s = Softmax<axis = 1>(image)
        y = Transpose<perm = [0, 2, 3, 1]>(s)
    }"""
    editor = compare(HEAD + text, [to_channels_last], {"x": normal(2, 3, 5, 4)})
    assert operators(editor.graph) == ["Transpose", "Softmax", "Transpose"]


def test_a_transpose_that_a_reshape_would_not_equal_stays() -> None:
    text = """
    g (float[b, h, w, 4] x) => (float[b, n, 2] y) <int64[3] target = {0, -1, 2}> {
        image = Transpose<perm = [0, 3, 1, 2]>(x)
        y = Reshape(image, target)
    }"""
    editor = compare(HEAD + text, [to_channels_last], {"x": normal(2, 3, 5, 4)})
    assert "Transpose" in operators(editor.graph)
