"""Linear and LinearGeglu against float64 products of the same rounded numbers."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.fused import (
    assert_as_good_as_rounding,
    each_unit,
    error,
    from_bf16,
    rounded,
    run,
    session,
    to_bf16,
)
from textopia_fast import _core

# Rows, channels, columns: one of each, a tile and one more or less, no multiple of anything, wide
# and narrow, more rows than one task takes.
SHAPES = [
    (1, 1, 1),
    (15, 31, 33),
    (16, 32, 32),
    (17, 33, 31),
    (33, 2, 70),
    (100, 320, 5),
    (77, 1030, 48),
    (1500, 40, 64),
]


def erf(x: np.ndarray) -> np.ndarray:
    return np.vectorize(__import__("math").erf)(x)


ACTIVATIONS = {
    "": lambda x: x,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2))),
    "quick_gelu": lambda x: x / (1 + np.exp(-1.702 * x)),
}


def numbers(m: int, k: int, n: int, seed: int = 0):
    rng = np.random.default_rng(seed)
    x = rounded(rng.standard_normal((m, k)))
    weight = rounded(rng.standard_normal((n, k)) / np.sqrt(k))
    bias = rng.standard_normal(n).astype(np.float32)
    return x, weight, bias, rng


@each_unit()
@pytest.mark.parametrize(("m", "k", "n"), SHAPES)
def test_linear_with_bias_and_residual(unit, m, k, n):
    x, weight, bias, rng = numbers(m, k, n)
    residual = rounded(rng.standard_normal((m, n)))
    exact = x.astype(float) @ weight.T.astype(float) + bias + residual
    found = run(
        unit,
        "Linear",
        {"x": to_bf16(x), "bias": bias, "residual": to_bf16(residual)},
        {"w": _core.pack_linear(weight)},
        rank=2,
        in_features=k,
        out_features=n,
        weight_format="bf16_panels",
    )
    assert_as_good_as_rounding(found, exact)


@each_unit()
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation_comes_before_the_residual(unit, activation):
    x, weight, bias, rng = numbers(37, 50, 45)
    residual = rounded(rng.standard_normal((37, 45)))
    exact = ACTIVATIONS[activation](x.astype(float) @ weight.T.astype(float) + bias) + residual
    inputs = {"x": to_bf16(x), "bias": bias, "residual": to_bf16(residual)}
    sizes = {"in_features": 50, "out_features": 45, "activation": activation}
    panels = {"w": _core.pack_linear(weight)}
    found = run(unit, "Linear", inputs, panels, rank=2, weight_format="bf16_panels", **sizes)
    assert_as_good_as_rounding(found, exact)


@each_unit()
@pytest.mark.parametrize(("m", "k", "n"), [(1, 1, 1), (33, 40, 15), (17, 64, 16), (70, 33, 50)])
@pytest.mark.parametrize("is_packed", [True, False])
def test_geglu(unit, m, k, n, is_packed):
    x, weight, bias, _ = numbers(m, k, 2 * n)
    product = x.astype(float) @ weight.T.astype(float) + bias
    exact = product[:, :n] * ACTIVATIONS["gelu"](product[:, n:])
    found = run(
        unit,
        "LinearGeglu",
        {"x": to_bf16(x), "bias": bias},
        {"w": _core.pack_linear(weight, geglu=True) if is_packed else weight},
        rank=2,
        in_features=k,
        out_features=n,
        weight_format="bf16_panels" if is_packed else "plain",
    )
    assert_as_good_as_rounding(found, exact)


@each_unit()
def test_without_bias_and_over_leading_dimensions(unit):
    x, weight, _, _ = numbers(2 * 3 * 5, 24, 9)
    found = run(
        unit,
        "Linear",
        {"x": to_bf16(x).reshape(2, 3, 5, 24), "bias": None, "residual": None},
        {"w": weight},
        rank=4,
        in_features=24,
        out_features=9,
    )
    exact = (x.astype(float) @ weight.T.astype(float)).reshape(2, 3, 5, 9)
    assert_as_good_as_rounding(found, exact)


def test_float32_stays_float32():
    x, weight, bias, rng = numbers(9, 30, 20)
    x = rng.standard_normal((9, 30), np.float32)
    weight = rng.standard_normal((20, 30), np.float32)
    sizes = {"in_features": 30, "out_features": 20}
    found = run("scalar", "Linear", {"x": x, "bias": bias}, {"w": weight}, rank=2, **sizes)
    assert found.dtype == np.float32
    assert error(found, x.astype(float) @ weight.T.astype(float) + bias) < 1e-6


@each_unit()
def test_infinite_and_missing_numbers_reach_only_their_own_results(unit):
    """Padding is zeros times zeros, never something times what lies behind an array."""
    x, weight, bias, _ = numbers(40, 35, 33)
    weight = weight.copy()
    weight[3, 5] = np.inf
    weight[32, 34] = np.nan
    x[7] = np.nan
    sizes = {"in_features": 35, "out_features": 33, "weight_format": "bf16_panels"}
    panels = {"w": _core.pack_linear(weight)}
    found = run(unit, "Linear", {"x": to_bf16(x), "bias": bias}, panels, rank=2, **sizes)
    is_wrong = ~np.isfinite(found)
    expected = np.zeros_like(is_wrong)
    expected[7] = True
    expected[:, [3, 32]] = True
    assert (is_wrong == expected).all()


@each_unit()
def test_no_rows(unit):
    weight = {"w": np.ones((4, 3), np.float32)}
    x = {"x": np.zeros((2, 0, 3), np.uint16)}
    found = run(unit, "Linear", x, weight, rank=3, in_features=3, out_features=4)
    assert found.shape == (2, 0, 4)


@each_unit()
def test_one_session_takes_any_number_of_rows_and_gives_the_same_bits(unit):
    x, weight, bias, _ = numbers(300, 64, 40)
    bits = to_bf16(x)
    sizes = {"in_features": 64, "out_features": 40}
    made = session(unit, "Linear", {"x": bits, "bias": bias}, {"w": weight}, rank=2, **sizes)
    whole = made.run({"x": bits, "bias": bias})["y"]
    for rows in (1, 14, 31, 150):
        part = made.run({"x": bits[:rows], "bias": bias})["y"]
        assert np.array_equal(part, whole[:rows])


def test_panels_hold_every_weight_in_its_place():
    """The layout that other compilers and kernels rely on."""
    n, k = 40, 70
    weight = np.arange(1, n * k + 1, dtype=np.float32).reshape(n, k)
    weight = rounded(weight)
    panels = from_bf16(_core.pack_linear(weight)).reshape(2, 3, 2, 16, 16, 2)
    padded = np.zeros((64, 96), np.float32)
    padded[:n, :k] = weight
    expected = padded.reshape(2, 2, 16, 3, 16, 2).transpose(0, 3, 1, 4, 2, 5)
    assert np.array_equal(panels, expected)


def test_panels_of_gates_pair_values_and_gates():
    n, k = 20, 5
    weight = rounded(np.arange(1, 2 * n * k + 1, dtype=np.float32).reshape(2 * n, k))
    panels = from_bf16(_core.pack_linear(weight, geglu=True)).reshape(2, 1, 2, 16, 16, 2)
    for half, rows in enumerate((weight[:n], weight[n:])):
        padded = np.zeros((32, 32), np.float32)
        padded[:n, :k] = rows
        expected = padded.reshape(2, 16, 16, 2).transpose(0, 2, 1, 3)
        assert np.array_equal(panels[:, 0, half], expected)
