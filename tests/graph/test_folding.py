"""Folding: what is known in advance is gone, what is free is computed from the inputs alone."""

from __future__ import annotations

import numpy as np
import pytest

from tests.graph.running import compare, editor_of, operators
from textopia_fast.graph.dims import Dim
from textopia_fast.graph.edit import Editor, dims_of
from textopia_fast.graph.folding import fold

HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'


def folded(text: str, **stored: np.ndarray) -> Editor:
    editor = editor_of(HEAD + text, **stored)
    fold(editor)
    return editor


def check_equal(text: str, feeds: dict[str, np.ndarray], **stored: np.ndarray) -> Editor:
    """The folded graph computes what the graph computed; gives it."""
    return compare(HEAD + text, [], feeds, atol=0.0, **stored)


HEADS = """
g (float[batch, tokens, 12] x) => (float[batch, h, t, d] y) {
    shape = Shape(x)
    zero = Constant<value_int = 0>()
    b = Gather(shape, zero)
    axes = Constant<value_ints = [0]>()
    b1 = Unsqueeze(b, axes)
    rest = Constant<value_ints = [-1, 3, 4]>()
    target = Concat<axis = 0>(b1, rest)
    split = Reshape(x, target)
    y = Transpose<perm = [0, 2, 1, 3]>(split)
}"""


def test_a_computed_target_becomes_a_constant() -> None:
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 5, 12), np.float32)}
    editor = check_equal(HEADS, feeds)
    assert operators(editor.graph) == ["Reshape", "Transpose"]
    # Free sizes are copied from the input.
    assert editor.graph[0].inputs[1].const_value.numpy().tolist() == [0, 0, 3, 4]
    tokens = Dim.symbol("tokens")
    assert dims_of(editor.graph.outputs[0]) == (Dim.symbol("batch"), 3, tokens, 4)


HALF = """
g (float[b, 4, h, w] image, float[b, n, 4] tokens) => (float[b, 4, p, q] y) <float[4, 4, 3, 3] k> {
    small = Conv<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>(image, k)
    turned = Transpose<perm = [0, 2, 1]>(tokens)
    shape = Shape(small)
    y = Reshape(turned, shape)
}"""


def test_two_free_sizes_are_computed_from_the_input() -> None:
    rng = np.random.default_rng(0)
    feeds = {
        "image": rng.standard_normal((2, 4, 7, 10), np.float32),
        "tokens": rng.standard_normal((2, 20, 4), np.float32),
    }
    editor = check_equal(HALF, feeds, k=rng.standard_normal((4, 4, 3, 3), np.float32))
    # The sizes no longer come from the convolution's result, which is not needed at all.
    assert "Conv" not in operators(editor.graph)


def test_a_scale_from_the_width_of_heads_is_a_number() -> None:
    text = """
    g (float[b, t, 16] x) => (float[b, t, 16] y) {
        shape = Shape(x)
        last = Constant<value_ints = [-1]>()
        end = Constant<value_ints = [9223372036854775807]>()
        width = Slice(shape, last, end)
        real = Cast<to = 1>(width)
        root = Sqrt(real)
        y = Div(x, root)
    }"""
    editor = check_equal(text, {"x": np.ones((1, 2, 16), np.float32)})
    assert operators(editor.graph) == ["Div"]
    assert editor.graph[0].inputs[1].const_value.numpy() == 4.0


def test_nodes_without_effect_go() -> None:
    text = """
    g (float[b, 4] x) => (float[b, 4] y) <float one = {1}> {
        a = Identity(x)
        c = Cast<to = 1>(a)
        d = Mul(c, one)
        e = Transpose<perm = [0, 1]>(d)
        f = Concat<axis = 1>(e)
        y = Relu(f)
    }"""
    editor = check_equal(text, {"x": np.ones((2, 4), np.float32)})
    assert operators(editor.graph) == ["Relu"]


@pytest.mark.parametrize(("training", "left"), [("", []), (", no", []), (", yes", ["Dropout"])])
def test_dropout_is_for_training(training: str, left: list[str]) -> None:
    text = f"""
    g (float[b, 4] x) => (float[b, 4] y)
    <float ratio = {{0.5}}, bool no = {{0}}, bool yes = {{1}}> {{
        d = Dropout(x, ratio{training})
        y = Relu(d)
    }}"""
    assert operators(folded(text).graph) == [*left, "Relu"]


def test_a_factor_that_adds_axes_stays() -> None:
    text = "g (float[b, 4] x) => (float[1, b, 4] y) { y = Mul(x, one) }"
    editor = check_equal(
        text, {"x": np.ones((2, 4), np.float32)}, one=np.ones((1, 1, 1), np.float32)
    )
    assert operators(editor.graph) == ["Mul"]


def test_zeros_of_baddbmm_are_not_added() -> None:
    text = """
    g (float[b, 4] x) => (float[b, 4] y) <float nought = {0}> {
        shape = Shape(x)
        empty = ConstantOfShape(shape)
        zeros = Mul(empty, nought)
        y = Add(x, zeros)
    }"""
    editor = check_equal(text, {"x": np.ones((2, 4), np.float32)})
    assert operators(editor.graph) == ["Identity"]


def test_zeros_that_broadcast_stay() -> None:
    text = """
    g (float[b, 4] x, float[c, b, 4] like) => (float[c, b, 4] y) {
        shape = Shape(like)
        zeros = ConstantOfShape(shape)
        y = Add(x, zeros)
    }"""
    feeds = {"x": np.ones((2, 4), np.float32), "like": np.ones((3, 2, 4), np.float32)}
    editor = check_equal(text, feeds)
    assert "Add" in operators(editor.graph)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_free_size_is_not_taken_for_another(rows: int) -> None:
    """One step spread over a batch by broadcasting: the result's rows are not the step's."""
    text = """
    g (float[steps, 4] t, float[batch, 4] x) => (float[n, 2, 2] y) {
        sum = Add(t, x)
        shape = Shape(sum)
        zero = Constant<value_ints = [0]>()
        n = Gather(shape, zero)
        rest = Constant<value_ints = [2, 2]>()
        target = Concat<axis = 0>(n, rest)
        y = Reshape(sum, target)
    }"""
    feeds = {"t": np.ones((1, 4), np.float32), "x": np.ones((rows, 4), np.float32)}
    check_equal(text, feeds)


def test_expand_to_a_free_size_stays() -> None:
    text = """
    g (float[steps] t, float[batch, 4] x) => (float[batch] y) {
        shape = Shape(x)
        zero = Constant<value_ints = [0]>()
        n = Gather(shape, zero)
        y = Expand(t, n)
    }"""
    feeds = {"t": np.ones(1, np.float32), "x": np.ones((3, 4), np.float32)}
    editor = check_equal(text, feeds)
    assert "Expand" in operators(editor.graph)


def test_constants_are_computed_up_to_a_limit() -> None:
    text = """
    g (float[b] x) => (float[n] y, float[m] z) <float[3] a = {1, 2, 3}> {
        sum = Add(a, a)
        y = Mul(x, sum)
        huge = Constant<value_ints = [1099511627776]>()
        z = ConstantOfShape(huge)
    }"""
    editor = folded(text)
    assert sorted(operators(editor.graph)) == ["ConstantOfShape", "Mul"]


def test_odd_attributes_fold_nothing_and_raise_nothing() -> None:
    text = """
    g (float[b, 4] x) => (float[c, d] y, float[e] z) {
        y = Transpose<perm = [7, 9]>(x)
        axis = Constant<value_ints = [12]>()
        z = Squeeze(x, axis)
    }"""
    editor = folded(text)
    assert operators(editor.graph) == ["Transpose", "Squeeze"]


def test_large_weights_are_not_loaded_to_be_turned() -> None:
    text = """
    g (float[b, 8] x) => (float[b, 3] y) {
        t = Transpose<perm = [1, 0]>(w)
        y = MatMul(x, t)
    }"""
    weight = np.arange(24, dtype=np.float32).reshape(3, 8)
    editor = check_equal(text, {"x": np.eye(8, dtype=np.float32)}, w=weight)
    assert operators(editor.graph) == ["MatMul"]
    assert type(editor.graph[0].inputs[1].const_value).__name__ == "LazyTensor"
