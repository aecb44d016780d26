"""Conv against a float64 convolution by its definition."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.fused import assert_as_good_as_rounding, each_unit, error, rounded, run, to_bf16
from textopia_fast import _core

# images, height, width, channels in and out, kernel, stride, upsample, asymmetric_pad
SHAPES = [
    (1, 1, 1, 1, 1, 3, 1, 0, 0),
    (2, 8, 8, 32, 32, 3, 1, 0, 0),
    (1, 5, 7, 4, 20, 3, 1, 0, 0),
    (3, 33, 31, 34, 35, 3, 1, 0, 0),
    (1, 2, 3, 70, 33, 3, 1, 0, 0),
    (2, 9, 11, 40, 33, 3, 2, 0, 0),
    (2, 8, 10, 40, 33, 3, 2, 0, 0),
    (1, 9, 7, 12, 33, 3, 2, 0, 1),
    (2, 8, 6, 12, 33, 3, 2, 0, 1),
    (1, 2, 2, 3, 5, 3, 2, 0, 1),
    (1, 5, 3, 35, 40, 3, 1, 1, 0),
    (2, 16, 12, 20, 31, 3, 1, 1, 0),
    (2, 6, 6, 35, 9, 1, 1, 0, 0),
    (1, 7, 5, 35, 9, 1, 2, 0, 0),
    (16, 3, 5, 8, 8, 3, 1, 0, 0),
    (1, 64, 48, 16, 24, 3, 1, 0, 0),
    # A block begins behind a border, and sums wait between chunks, some behind the last row.
    (2, 8, 4, 200, 130, 3, 1, 0, 0),
]


def convolution(x, weight, stride=1, upsample=0, asymmetric_pad=0):
    """x [B, H, W, C], weight [N, k, k, C], in float64; zeros around the image."""
    x, weight = x.astype(float), weight.astype(float)
    if upsample:
        x = x.repeat(2, axis=1).repeat(2, axis=2)
    kernel = weight.shape[1]
    before, after = (kernel // 2, kernel // 2) if not asymmetric_pad else (0, 1)
    x = np.pad(x, ((0, 0), (before, after), (before, after), (0, 0)))
    height, width = ((size - kernel) // stride + 1 for size in x.shape[1:3])
    y = np.zeros((x.shape[0], height, width, weight.shape[0]))
    for dy in range(kernel):
        for dx in range(kernel):
            rows = slice(dy, dy + (height - 1) * stride + 1, stride)
            columns = slice(dx, dx + (width - 1) * stride + 1, stride)
            y += x[:, rows, columns] @ weight[:, dy, dx].T
    return y


def numbers(shape, seed=0):
    images, height, width, channels, columns, kernel, *_ = shape
    rng = np.random.default_rng(seed)
    x = rounded(rng.standard_normal((images, height, width, channels)))
    weight = rng.standard_normal((columns, kernel, kernel, channels)) / kernel / np.sqrt(channels)
    return x, rounded(weight), rng.standard_normal(columns).astype(np.float32), rng


def attributes_of(shape):
    _, _, _, channels, columns, kernel, stride, upsample, asymmetric_pad = shape
    return {
        "in_channels": channels,
        "out_channels": columns,
        "kernel": kernel,
        "stride": stride,
        "upsample": upsample,
        "asymmetric_pad": asymmetric_pad,
    }


@each_unit()
@pytest.mark.parametrize("shape", SHAPES)
def test_conv(unit, shape):
    x, weight, bias, _ = numbers(shape)
    exact = convolution(x, weight, *shape[6:]) + bias
    found = run(
        unit,
        "Conv",
        {"x": to_bf16(x), "bias": bias},
        {"w": _core.pack_conv(weight, upsample=bool(shape[7]))},
        rank=4,
        weight_format="bf16_panels",
        **attributes_of(shape),
    )
    # the weights of phases are sums, rounded to bfloat16 a second time
    assert_as_good_as_rounding(found, exact, factor=3.0 if shape[7] else 2.0)


@each_unit()
@pytest.mark.parametrize("activation", ["", "silu"])
@pytest.mark.parametrize("shape", [SHAPES[3], SHAPES[5], SHAPES[11], SHAPES[12]])
def test_time_bias_activation_and_residual_in_this_order(unit, shape, activation):
    x, weight, bias, rng = numbers(shape)
    images, columns = shape[0], shape[4]
    time_bias = rounded(rng.standard_normal((images, columns)))
    exact = convolution(x, weight, *shape[6:]) + bias + time_bias[:, None, None]
    if activation:
        exact = exact / (1 + np.exp(-exact))
    residual = rounded(rng.standard_normal(exact.shape))
    exact = exact + residual
    found = run(
        unit,
        "Conv",
        {
            "x": to_bf16(x),
            "bias": bias,
            "time_bias": to_bf16(time_bias),
            "residual": to_bf16(residual),
        },
        {"w": weight},
        rank=4,
        activation=activation,
        **attributes_of(shape),
    )
    assert_as_good_as_rounding(found, exact, factor=3.0 if shape[7] else 2.0)


@each_unit()
def test_one_time_bias_for_all_images(unit):
    shape = SHAPES[3]
    x, weight, bias, rng = numbers(shape)
    time_bias = rounded(rng.standard_normal((1, shape[4])))
    inputs = {"x": to_bf16(x), "bias": bias, "time_bias": to_bf16(time_bias)}
    found = run(unit, "Conv", inputs, {"w": weight}, rank=4, **attributes_of(shape))
    assert_as_good_as_rounding(found, convolution(x, weight) + bias + time_bias)


@pytest.mark.parametrize("shape", SHAPES)
def test_float32_stays_float32(shape):
    x, weight, bias, _ = numbers(shape)
    exact = convolution(x, weight, *shape[6:]) + bias
    inputs = {"x": x, "bias": bias}
    found = run("scalar", "Conv", inputs, {"w": weight}, rank=4, **attributes_of(shape))
    assert found.dtype == np.float32
    assert error(found, exact) < 1e-6


@each_unit()
def test_one_wrong_pixel_reaches_only_its_neighbours(unit):
    """Not the borders, which images share, and not the rows that pad a task."""
    shape = (2, 6, 5, 33, 40, 3, 1, 0, 0)
    x, weight, bias, _ = numbers(shape)
    x[0, 5, 4] = np.nan
    inputs = {"x": to_bf16(x), "bias": bias}
    found = run(unit, "Conv", inputs, {"w": weight}, rank=4, **attributes_of(shape))
    is_wrong = np.isnan(found).all(axis=-1)
    expected = np.zeros((2, 6, 5), bool)
    expected[0, 4:, 3:] = True
    assert (is_wrong == expected).all()
    assert (np.isnan(found).any(axis=-1) == expected).all()


def test_phase_kernels_are_sums_of_the_kernel():
    rng = np.random.default_rng(3)
    weight = rng.standard_normal((5, 3, 3, 4)).astype(np.float32)
    phases = _core.pack_conv(weight, upsample=True)
    parts = [weight[:, :1], weight[:, 1:].sum(1, keepdims=True)]  # rows of phase 0
    other = [weight[:, :2].sum(1, keepdims=True), weight[:, 2:]]  # and of phase 1
    size = phases.size // 4
    for phase in range(4):
        rows = np.concatenate(parts if phase < 2 else other, axis=1)
        if phase % 2 == 0:
            kernel = [rows[:, :, :1], rows[:, :, 1:].sum(2, keepdims=True)]
        else:
            kernel = [rows[:, :, :2].sum(2, keepdims=True), rows[:, :, 2:]]
        kernel = np.concatenate(kernel, axis=2)  # [5, 2, 2, 4]
        found = phases[phase * size : (phase + 1) * size].reshape(4, 2, 16, 16, 2)
        expected = np.zeros((4, 32, 32), np.float32)
        expected[:, :5, :4] = kernel.reshape(5, 4, 4).transpose(1, 0, 2)
        expected = expected.reshape(4, 2, 16, 16, 2).transpose(0, 1, 3, 2, 4)
        exact = np.abs(expected - (found.astype(np.uint32) << 16).view(np.float32))
        assert (exact <= 2.0**-8 * np.abs(expected) + 1e-7).all()
