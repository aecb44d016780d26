"""LayerNorm and GroupNorm against float64."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.fused import assert_as_good_as_rounding, each_unit, error, rounded, run, to_bf16


def silu(x):
    return x / (1 + np.exp(-x))


def parameters(channels, seed=1):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(channels).astype(np.float32) for _ in range(2))


def layer_norm(x, gamma, beta, epsilon):
    x = x.astype(float)
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * gamma + beta


def group_norm(x, gamma, beta, groups, epsilon):
    grouped = x.astype(float).reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
    centred = grouped - grouped.mean((1, 3), keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean((1, 3), keepdims=True) + epsilon)
    return scaled.reshape(x.shape) * gamma + beta


@each_unit()
@pytest.mark.parametrize("shape", [(1, 1), (3, 15), (2, 5, 33), (2, 77, 320), (1, 300, 1280)])
@pytest.mark.parametrize("mean", [0.0, 20.0])
def test_layer_norm(unit, shape, mean):
    rng = np.random.default_rng(0)
    x = rounded(rng.standard_normal(shape) + mean)
    gamma, beta = parameters(shape[-1])
    found = run(
        unit,
        "LayerNorm",
        {"x": to_bf16(x), "gamma": gamma, "beta": beta},
        {},
        rank=len(shape),
        epsilon=1e-5,
    )
    assert_as_good_as_rounding(found, layer_norm(x, gamma, beta, 1e-5))


@each_unit()
@pytest.mark.parametrize(
    ("shape", "groups"),
    [
        ((1, 1, 1, 4), 2),
        ((2, 5, 7, 30), 3),
        ((2, 63, 64), 32),
        ((1, 16, 16, 320), 32),
        ((3, 33, 9, 96), 1),
        ((2, 65, 17, 48), 48),
    ],
)
@pytest.mark.parametrize("activation", ["", "silu"])
@pytest.mark.parametrize("mean", [0.0, 50.0])
def test_group_norm(unit, shape, groups, activation, mean):
    rng = np.random.default_rng(0)
    x = rounded(rng.standard_normal(shape) + mean)
    gamma, beta = parameters(shape[-1])
    exact = group_norm(x, gamma, beta, groups, 1e-6)
    found = run(
        unit,
        "GroupNorm",
        {"x": to_bf16(x), "gamma": gamma, "beta": beta},
        {},
        rank=len(shape),
        groups=groups,
        epsilon=1e-6,
        activation=activation,
    )
    assert_as_good_as_rounding(found, silu(exact) if activation else exact)


@each_unit()
def test_constant_input_gives_beta(unit):
    x = to_bf16(np.full((1, 8, 8, 32), 3.0))
    gamma, beta = parameters(32)
    inputs = {"x": x, "gamma": gamma, "beta": beta}
    found = run(unit, "GroupNorm", inputs, {}, rank=4, groups=4, epsilon=1e-5)
    assert np.allclose(found, np.broadcast_to(rounded(beta), found.shape), atol=0, rtol=2.0**-8)


@pytest.mark.parametrize("op", ["LayerNorm", "GroupNorm"])
def test_float32_stays_float32(op):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 6, 24), np.float32)
    gamma, beta = parameters(24)
    options = {"groups": 4, "epsilon": 1e-5} if op == "GroupNorm" else {"epsilon": 1e-5}
    inputs = {"x": x, "gamma": gamma, "beta": beta}
    found = run("scalar", op, inputs, {}, rank=3, **options)
    exact = (
        group_norm(x, gamma, beta, 4, 1e-5)
        if op == "GroupNorm"
        else layer_norm(x, gamma, beta, 1e-5)
    )
    assert error(found, exact) < 1e-6
