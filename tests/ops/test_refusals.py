"""Nodes and inputs that cannot be: a typed error that names the node, what was found and what is
allowed, when the session is made or, for sizes, when it runs."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.support.fused import run, session
from textopia_fast import _core
from textopia_fast.errors import (
    ExecutionError,
    ModelFormatError,
    TextopiaError,
    UnsupportedModelError,
)

X = np.zeros((2, 6, 4), np.float32)
IMAGE = np.zeros((1, 6, 6, 4), np.float32)
WEIGHT = np.zeros((5, 4), np.float32)
KERNEL = np.zeros((5, 3, 3, 4), np.float32)
LINEAR = {"in_features": 4, "out_features": 5}
CONV = {"in_channels": 4, "out_channels": 5}


def packed(count: int, dtype: int = TensorProto.UINT16):
    return helper.make_tensor("w", dtype, [count], bytes(count * 2), raw=True)


@pytest.mark.parametrize(
    ("op", "weight", "attributes", "found"),
    [
        ("Linear", WEIGHT, {"out_features": 5}, "in_features"),
        ("Linear", WEIGHT, {"in_features": -4, "out_features": 5}, "-4"),
        ("Linear", WEIGHT, {"in_features": 4, "out_features": 6}, "[5,4]"),
        ("Linear", WEIGHT, {**LINEAR, "in_features": 2.5}, "in_features"),
        ("Linear", WEIGHT, {**LINEAR, "activation": "relu"}, "relu"),
        ("Linear", WEIGHT, {**LINEAR, "weight_format": "bf16"}, "bf16"),
        ("Linear", WEIGHT, {**LINEAR, "weight_format": "bf16_panels"}, "float32"),
        ("Linear", packed(1000), {**LINEAR, "weight_format": "bf16_panels"}, "1000"),
        ("Linear", np.zeros((5, 4), np.uint16), LINEAR, "uint16"),
        ("LinearGeglu", WEIGHT, LINEAR, "10 x 1 x 4"),
        ("Conv", KERNEL, {**CONV, "kernel": 5}, "5"),
        ("Conv", KERNEL, {**CONV, "stride": 3}, "3"),
        ("Conv", KERNEL, {**CONV, "kernel": 1}, "5 x 1 x 4"),
        ("Conv", KERNEL, {**CONV, "activation": "gelu"}, "gelu"),
    ],
)
def test_nodes_that_cannot_be(op, weight, attributes, found):
    x = IMAGE if op == "Conv" else X
    with pytest.raises(ModelFormatError) as refusal:
        session("scalar", op, {"x": x}, {"w": weight}, rank=x.ndim, **attributes)
    assert "node" in str(refusal.value)
    assert found in str(refusal.value)


@pytest.mark.parametrize("attributes", [{"upsample": 1, "stride": 2}, {"asymmetric_pad": 1}])
def test_convolutions_that_there_are_none_of(attributes):
    with pytest.raises(UnsupportedModelError, match=f"Conv 'node': {next(iter(attributes))}"):
        session("scalar", "Conv", {"x": IMAGE}, {"w": KERNEL}, rank=4, **CONV, **attributes)


def test_a_weight_that_is_no_constant():
    with pytest.raises(ModelFormatError, match="not a constant"):
        session("scalar", "Linear", {"x": X, "w": WEIGHT}, {}, rank=3, **LINEAR)


@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("GroupNorm", {"epsilon": 1e-5}),
        ("GroupNorm", {"groups": 2, "epsilon": -1.0}),
        ("GroupNorm", {"groups": 2, "activation": "relu"}),
        ("LayerNorm", {"epsilon": -1.0}),
    ],
)
def test_norms_that_cannot_be(op, attributes):
    ones = np.ones(4, np.float32)
    inputs = {"x": X, "gamma": ones, "beta": ones}
    with pytest.raises(ModelFormatError, match="node"):
        session("scalar", op, inputs, {}, rank=3, **attributes)


@pytest.mark.parametrize(
    "attributes", [{}, {"heads": 0}, {"heads": 2, "scale": -1.0}, {"heads": 2, "causal": 2}]
)
def test_attention_that_cannot_be(attributes):
    with pytest.raises(ModelFormatError, match="node"):
        session("scalar", "Attention", {"q": X, "k": X, "v": X}, {}, rank=3, **attributes)


def test_types_that_do_not_fit():
    """float16 activations are for GPUs; a bias is float32."""
    with pytest.raises(TextopiaError, match="float16"):
        session("scalar", "Linear", {"x": X.astype(np.float16)}, {"w": WEIGHT}, rank=3, **LINEAR)
    bias = np.zeros(5, np.uint16)  # bfloat16
    with pytest.raises(TextopiaError, match="bfloat16"):
        session("scalar", "Linear", {"x": X, "b": bias}, {"w": WEIGHT}, rank=3, **LINEAR)


def test_an_unknown_operator_of_the_domain():
    with pytest.raises(TextopiaError):
        session("scalar", "Pool", {"x": X}, {}, rank=3)


def zeros(*shape):
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("op", "inputs", "weight", "attributes", "found"),
    [
        ("Linear", {"x": zeros(2, 6, 3)}, WEIGHT, LINEAR, "[2,6,3]"),
        ("Linear", {"x": X, "b": zeros(4)}, WEIGHT, LINEAR, "the bias"),
        ("Linear", {"x": X, "b": zeros(5), "r": zeros(2, 6, 4)}, WEIGHT, LINEAR, "[2,6,5]"),
        ("LinearGeglu", {"x": X, "b": zeros(5)}, zeros(10, 4), LINEAR, "[10]"),
        ("Conv", {"x": zeros(1, 6, 6, 3)}, KERNEL, CONV, "[1,6,6,3]"),
        ("Conv", {"x": IMAGE, "b": None, "t": zeros(2, 5)}, KERNEL, CONV, "the time bias"),
        (
            "Conv",
            {"x": IMAGE, "b": None, "t": None, "r": zeros(1, 6, 5, 5)},
            KERNEL,
            CONV,
            "[1,6,5,5]",
        ),
        ("GroupNorm", {"x": X, "g": zeros(3), "b": zeros(4)}, None, {"groups": 2}, "gamma"),
        ("GroupNorm", {"x": X, "g": zeros(4), "b": zeros(4)}, None, {"groups": 3}, "3 groups"),
        ("LayerNorm", {"x": X, "g": zeros(4), "b": zeros(5)}, None, {}, "beta"),
        ("Attention", {"q": X, "k": zeros(1, 6, 4), "v": X}, None, {"heads": 2}, "K has the shape"),
        ("Attention", {"q": X, "k": X, "v": zeros(2, 5, 4)}, None, {"heads": 2}, "V has the shape"),
        ("Attention", {"q": X, "k": X, "v": X}, None, {"heads": 3}, "multiple of 3"),
        ("Attention", {"q": X}, None, {"heads": 2}, "multiple of 6"),
        (
            "Attention",
            {"q": X, "k": X, "v": X, "m": zeros(1, 1, 5, 6)},
            None,
            {"heads": 2},
            "the mask",
        ),
    ],
)
def test_inputs_that_do_not_fit(op, inputs, weight, attributes, found):
    constants = {} if weight is None else {"w": weight}
    rank = inputs[next(iter(inputs))].ndim
    with pytest.raises(ExecutionError) as refusal:
        run("scalar", op, inputs, constants, rank=rank, **attributes)
    assert "node" in str(refusal.value)
    assert found in refusal.value.details["cause"]


@pytest.mark.parametrize(
    ("function", "weight"),
    [
        (_core.pack_linear, np.zeros((4, 4))),
        (_core.pack_linear, zeros(4)),
        (_core.pack_linear, zeros(0, 4)),
        (_core.pack_linear, zeros(4, 8)[:, ::2]),
        (_core.pack_conv, zeros(4, 4)),
        (_core.pack_conv, zeros(4, 3, 1, 4)),
        (_core.pack_conv, zeros(4, 5, 5, 4)),
    ],
)
def test_weights_that_cannot_be_packed(function, weight):
    with pytest.raises(TextopiaError, match="pack_"):
        function(weight)


def test_pairs_that_cannot_be():
    with pytest.raises(TextopiaError, match="gates"):
        _core.pack_linear(zeros(5, 4), geglu=True)
    with pytest.raises(TextopiaError, match="3 x 3"):
        _core.pack_conv(zeros(5, 1, 1, 4), upsample=True)


def test_an_unknown_unit():
    with pytest.raises(TextopiaError, match="scalar"):
        _core.set_matrix_unit("avx9")
