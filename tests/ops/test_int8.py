"""Layers in int8: exact integers in float64 around the same rounding, and the rounding's own bound."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.ops.test_conv import SHAPES as CONV_SHAPES
from tests.ops.test_conv import attributes_of, convolution
from tests.ops.test_conv import numbers as conv_numbers
from tests.ops.test_linear import ACTIVATIONS, numbers
from tests.ops.test_linear import SHAPES as LINEAR_SHAPES
from tests.support import fused
from tests.support.fused import (
    assert_as_good_as_rounding,
    each_unit,
    error,
    from_bf16,
    rounded,
    to_bf16,
)
from textopia_fast import ModelFormatError, UnsupportedModelError, _core

ZERO_POINTS = [128, 24]


def run(unit, op, inputs, panels, *, rank, **attributes):
    weight = helper.make_tensor("w", TensorProto.UINT8, panels.shape, panels.tobytes(), raw=True)
    attributes = {"weight_format": "int8_panels", **attributes}
    return fused.run(unit, op, inputs, {"w": weight}, rank=rank, **attributes)


def scale_of(x, zero_point, axes):
    """Of the rows of x, or of whole images: float32 as the kernels find it."""
    high = np.maximum(x.max(axis=axes, keepdims=True), 0) / np.float32(255 - zero_point)
    low = np.maximum(-x.min(axis=axes, keepdims=True), 0) / np.float32(zero_point)
    return np.maximum(high, low).astype(np.float32)


def quantise(x, scale, zero_point):
    """The integers that stand for x; x is near integers * scale."""
    inverse = np.where(scale > 0, 1 / np.where(scale > 0, scale, 1), 0).astype(np.float32)
    fused = (x.astype(float) * inverse + zero_point).astype(np.float32)  # one rounding
    return np.clip(np.rint(fused), 0, 255) - zero_point


def quantise_weight(weight):
    """[N, ...] to integers and one float32 scale per row."""
    flat = weight.reshape(len(weight), -1)
    most = np.abs(flat).max(axis=1)
    inverse = np.float32(127) / np.where(most > 0, most, 1)
    q = np.rint(flat * inverse.astype(np.float32)[:, None])
    return q.reshape(weight.shape), most / np.float32(127)


def linear(x, weight, zero_point=128):
    scale = scale_of(x, zero_point, -1)
    q, weight_scale = quantise_weight(weight)
    sums = quantise(x, scale, zero_point) @ q.reshape(len(weight), -1).T
    return sums * weight_scale.astype(float) * scale.astype(float)


def bound(x, weight, zero_point=128):
    """What rounding may cost: half a step of each x times the weights, and of each weight times x."""
    step = scale_of(x, zero_point, -1).astype(float)
    weight_step = quantise_weight(weight)[1].astype(float)
    return (
        step / 2 * np.abs(weight).sum(axis=1)
        + np.abs(x).sum(axis=-1, keepdims=True) * weight_step / 2
        + x.shape[-1] * step * weight_step / 4
    )


@each_unit()
@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize(("m", "k", "n"), [*LINEAR_SHAPES, (29, 64, 32), (15, 129, 70)])
def test_linear(unit, m, k, n, zero_point):
    x, weight, bias, rng = numbers(m, k, n)
    if zero_point != 128:
        x = rounded(np.maximum(x, -0.28))
    residual = rounded(rng.standard_normal((m, n)))
    found = run(
        unit,
        "Linear",
        {"x": to_bf16(x), "bias": bias, "residual": to_bf16(residual)},
        _core.pack_linear(weight, int8=True),
        rank=2,
        in_features=k,
        out_features=n,
        zero_point=zero_point,
    )
    assert_as_good_as_rounding(found, linear(x, weight, zero_point) + bias + residual, factor=1.2)
    exact = x.astype(float) @ weight.T.astype(float) + bias + residual
    allowed = bound(x, weight, zero_point) + 2.0**-8 * np.abs(exact) + 1e-5
    assert (np.abs(found - exact) <= allowed).all()


@each_unit()
@pytest.mark.parametrize("zero_point", ZERO_POINTS)
@pytest.mark.parametrize("shape", CONV_SHAPES)
def test_conv(unit, shape, zero_point):
    x, weight, bias, rng = conv_numbers(shape)
    time_bias = rounded(rng.standard_normal((shape[0], shape[4])))
    exact = conv(x, weight, shape, zero_point) + bias + time_bias[:, None, None]
    found = run(
        unit,
        "Conv",
        {"x": to_bf16(x), "bias": bias, "time_bias": to_bf16(time_bias), "residual": None},
        _core.pack_conv(weight, upsample=bool(shape[7]), int8=True),
        rank=4,
        zero_point=zero_point,
        **attributes_of(shape),
    )
    assert_as_good_as_rounding(found, exact, factor=1.2)


def conv(x, weight, shape, zero_point):
    """One scale per image, or per pixel for a kernel of one; zeros around the image are exact."""
    kernel, stride, upsample, asymmetric_pad = shape[5:]
    scale = scale_of(x, zero_point, (1, 2, 3) if kernel == 3 else -1).astype(np.float32)
    q = quantise(x, scale, zero_point)
    out_scale = scale if kernel == 3 else scale[:, ::stride, ::stride]
    if not upsample:
        whole, weight_scale = quantise_weight(weight)
        sums = convolution(q, whole, stride, upsample, asymmetric_pad)
        return sums * weight_scale.astype(float) * out_scale.astype(float)
    y = np.zeros((len(x), 2 * x.shape[1], 2 * x.shape[2], len(weight)))
    for phase in range(4):
        part = phase_kernel(weight, phase)
        whole, weight_scale = quantise_weight(part)
        rows, columns = phase // 2, phase % 2
        padded = np.pad(q, ((0, 0), (1 - rows, rows), (1 - columns, columns), (0, 0)))
        height, width = x.shape[1:3]
        sums = sum(
            padded[:, dy : dy + height, dx : dx + width] @ whole[:, dy, dx].T
            for dy in range(2)
            for dx in range(2)
        )
        y[:, rows::2, columns::2] = sums * weight_scale.astype(float)
    return y * scale.astype(float)


def phase_kernel(weight, phase):
    """The 2x2 kernel over the image itself, summed in float32."""

    def halves(array, axis, second):
        parts = np.split(array, [1, 2], axis=axis)
        pairs = (parts[0] + parts[1], parts[2]) if second else (parts[0], parts[1] + parts[2])
        return np.concatenate(pairs, axis=axis)

    return halves(halves(weight, 1, phase // 2), 2, phase % 2)
