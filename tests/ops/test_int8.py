"""Layers in int8 against exact sums of the same integers, and within the bound of rounding."""

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
    rounded,
    to_bf16,
)
from textopia_fast import _core
from textopia_fast.errors import ModelFormatError

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
    """What rounding may cost: half a step of each x times the weights, and the other way."""
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


@each_unit()
@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (33, 200, 15), (17, 64, 16), (70, 33, 50)])
def test_geglu(unit, m, k, n):
    x, weight, bias, _ = numbers(m, k, 2 * n)
    product = linear(x, weight) + bias
    found = run(
        unit,
        "LinearGeglu",
        {"x": to_bf16(x), "bias": bias},
        _core.pack_linear(weight, geglu=True, int8=True),
        rank=2,
        in_features=k,
        out_features=n,
    )
    exact = product[:, :n] * ACTIVATIONS["gelu"](product[:, n:])
    assert_as_good_as_rounding(found, exact, factor=1.2)


@each_unit()
@pytest.mark.parametrize("activation", ["silu", "gelu", "quick_gelu"])
def test_activation_comes_before_the_residual(unit, activation):
    x, weight, bias, rng = numbers(37, 50, 45)
    residual = rounded(rng.standard_normal((37, 45)))
    sizes = {"in_features": 50, "out_features": 45, "activation": activation}
    inputs = {"x": to_bf16(x), "bias": bias, "residual": to_bf16(residual)}
    found = run(unit, "Linear", inputs, _core.pack_linear(weight, int8=True), rank=2, **sizes)
    exact = ACTIVATIONS[activation](linear(x, weight) + bias) + residual
    assert_as_good_as_rounding(found, exact, factor=1.2)


def linear_of(unit, x, weight, bias=None, **attributes):
    sizes = {"in_features": weight.shape[1], "out_features": weight.shape[0], **attributes}
    panels = _core.pack_linear(weight, int8=True)
    return run(unit, "Linear", {"x": to_bf16(x), "bias": bias}, panels, rank=2, **sizes)


@each_unit()
@pytest.mark.parametrize("zero_point", ZERO_POINTS)
def test_the_integers_are_those_of_plain_code(unit, zero_point):
    """Also the largest sums: every product has the same sign and its largest magnitude."""
    x, weight, _, _ = numbers(50, 1000, 40)
    x[3], weight[5] = 2.0, 3.0
    x[4], weight[6] = -2.0, -3.0
    plain = linear_of("scalar", x, weight, zero_point=zero_point)
    found = linear_of(unit, x, weight, zero_point=zero_point)
    assert (found == plain).all()
    exact = x.astype(float) @ weight.T.astype(float)
    assert error(found[3:5, 5:7], exact[3:5, 5:7]) < 2.0**-8


@each_unit()
def test_rows_of_zeros_and_rows_with_one_giant(unit):
    x, weight, bias, _ = numbers(40, 96, 33)
    x[2] = 0
    x[5] = 0
    x[5, 17] = 3e38
    x[6] = 1e-37  # nothing that bytes can be scaled to: nothing
    weight[4] = 0
    found = linear_of(unit, x, weight / 100, bias)
    assert (found[[2, 6]] == rounded(bias)).all()
    assert (found[:, 4] == rounded(bias[4])).all()
    giant = 3e38 * (weight[:, 17] / 100).astype(float)
    step = quantise_weight(weight / 100)[1] * 3e38
    assert (np.abs(found[5] - giant) <= step / 2 + 2.0**-7 * np.abs(giant) + np.abs(bias)).all()
    assert np.isfinite(found).all()
    rest = [row for row in range(40) if row not in (2, 5, 6)]
    assert_as_good_as_rounding(found[rest], linear(x[rest], weight / 100) + bias, factor=1.2)


@each_unit()
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_wrong_numbers_never_vanish(unit, wrong):
    """A row or a column with one has no scale: all of its results are NaN."""
    x, weight, bias, _ = numbers(40, 100, 33)
    x[7, 99] = wrong
    weight[3, 5] = wrong
    found = linear_of(unit, x, weight, bias)
    expected = np.zeros(found.shape, bool)
    expected[7], expected[:, 3] = True, True
    assert (np.isnan(found) == expected).all()


@each_unit()
def test_a_wrong_pixel_spoils_its_image_alone(unit):
    shape = (2, 6, 5, 33, 40, 3, 1, 0, 0)
    x, weight, bias, _ = conv_numbers(shape)
    x[0, 5, 4, 32] = np.nan
    panels = _core.pack_conv(weight, int8=True)
    inputs = {"x": to_bf16(x), "bias": bias}
    found = run(unit, "Conv", inputs, panels, rank=4, **attributes_of(shape))
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1]).all()


@each_unit()
def test_an_image_is_the_same_alone_and_in_a_batch(unit):
    shape = (3, 20, 24, 40, 36, 3, 1, 0, 0)
    x, weight, bias, _ = conv_numbers(shape)
    x[1] *= 50
    bits, panels = to_bf16(x), _core.pack_conv(weight, int8=True)
    held = {
        "w": helper.make_tensor("w", TensorProto.UINT8, panels.shape, panels.tobytes(), raw=True)
    }
    attributes = {"weight_format": "int8_panels", **attributes_of(shape)}
    whole, alone = (
        fused.session(
            unit, "Conv", {"x": bits, "bias": bias}, held, rank=4, threads=threads, **attributes
        )
        for threads in (2, 1)
    )
    together = whole.run({"x": bits, "bias": bias})["y"]
    for image in range(3):
        one = alone.run({"x": bits[image : image + 1], "bias": bias})["y"]
        assert np.array_equal(one[0], together[image])


def test_panels_hold_every_weight_and_end_with_scales_and_sums():
    """The layout that other kernels rely on."""
    n, k = 40, 70
    weight = np.random.default_rng(1).standard_normal((n, k)).astype(np.float32)
    panels = _core.pack_linear(weight, int8=True).reshape(2, -1)
    numbers_of, end = panels[:, :-256], panels[:, -256:]
    q, scale = quantise_weight(weight)
    padded = np.zeros((64, 128), np.int8)
    padded[:n, :k] = q
    expected = padded.reshape(2, 2, 16, 2, 16, 4).transpose(0, 3, 1, 4, 2, 5)
    assert np.array_equal(numbers_of.view(np.int8).reshape(expected.shape), expected)
    assert np.array_equal(end[:, :128].copy().view(np.float32).reshape(-1)[:n], scale)
    sums = end[:, 128:].copy().view(np.int32).reshape(-1)
    assert np.array_equal(sums, padded.astype(int).sum(axis=1))


@pytest.mark.parametrize(
    ("attributes", "kind", "message"),
    [
        ({"zero_point": 0}, ModelFormatError, "zero_point is 0, allowed are 1 to 254"),
        ({"zero_point": 255}, ModelFormatError, "zero_point is 255"),
        ({"in_features": 129}, ModelFormatError, "needed are 6400 of uint8"),
        ({"in_features": 1 << 17}, ModelFormatError, "elements of type uint8"),
    ],
)
def test_nodes_that_do_not_fit_are_refused(attributes, kind, message):
    weight = np.ones((4, 64), np.float32)
    with pytest.raises(kind, match=message):
        linear_of("scalar", np.ones((2, 64), np.float32), weight, **attributes)


def test_float32_and_sums_too_long_are_refused():
    panels = _core.pack_linear(np.ones((4, 64), np.float32), int8=True)
    sizes = {"in_features": 64, "out_features": 4, "rank": 2}
    with pytest.raises(ModelFormatError, match="multiply bfloat16 activations"):
        run("scalar", "Linear", {"x": np.ones((2, 64), np.float32)}, panels, **sizes)
    long = np.zeros((1, 66_400), np.float32)
    with pytest.raises(ModelFormatError, match="sums of 66400 products, in int8 at most 66311"):
        linear_of("scalar", long, long)
