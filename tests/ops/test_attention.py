"""Attention against a float64 softmax."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.fused import assert_as_good_as_rounding, each_unit, error, rounded, run, to_bf16

# batch, queries, keys, heads, head width
SHAPES = [
    (1, 1, 1, 1, 8),
    (2, 33, 31, 2, 9),
    (1, 32, 32, 1, 16),
    (2, 77, 77, 3, 40),
    (1, 64, 77, 2, 80),
    (1, 130, 500, 2, 64),
    (1, 16, 225, 2, 160),
    (1, 40, 300, 1, 512),
]


def attention(q, k, v, heads, scale=None, mask=0.0, causal=False):
    batch, queries, channels = q.shape
    width = channels // heads

    def split(x):
        return x.astype(float).reshape(batch, -1, heads, width).transpose(0, 2, 1, 3)

    logits = split(q) @ split(k).transpose(0, 1, 3, 2) * (scale or width**-0.5) + mask
    if causal:
        logits = np.where(np.tri(queries, k.shape[1], dtype=bool), logits, -np.inf)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    y = weights / weights.sum(-1, keepdims=True) @ split(v)
    return y.transpose(0, 2, 1, 3).reshape(q.shape)


def numbers(shape, amplitude=1.0, seed=0):
    batch, queries, keys, heads, width = shape
    rng = np.random.default_rng(seed)
    sizes = ((queries, amplitude), (keys, amplitude), (keys, 1.0))
    arrays = [rounded(rng.standard_normal((batch, n, heads * width)) * a) for n, a in sizes]
    return *arrays, rng


def run_attention(unit, q, k=None, v=None, mask=None, **attributes):
    inputs = {
        "q": to_bf16(q),
        "k": None if k is None else to_bf16(k),
        "v": None if v is None else to_bf16(v),
        "mask": mask,
    }
    return run(unit, "Attention", inputs, {}, rank=3, **attributes)


@each_unit()
@pytest.mark.parametrize("shape", SHAPES)
def test_attention(unit, shape):
    q, k, v, _ = numbers(shape)
    found = run_attention(unit, q, k, v, heads=shape[3])
    assert_as_good_as_rounding(found, attention(q, k, v, shape[3]))


@each_unit()
@pytest.mark.parametrize("amplitude", [10.0, 100.0, 400.0])
def test_logits_of_any_size(unit, amplitude):
    """Up to 1e6: one key takes all, and no exponential overflows."""
    shape = (1, 50, 300, 2, 40)
    q, k, v, _ = numbers(shape, amplitude)
    found = run_attention(unit, q, k, v, heads=2)
    assert_as_good_as_rounding(found, attention(q, k, v, 2))


@each_unit()
def test_a_late_key_may_outweigh_all_before(unit):
    """Chunk after chunk the maximum grows; sums made so far shrink with it."""
    shape = (1, 33, 900, 1, 32)
    q, k, v, _ = numbers(shape)
    q = np.abs(q)
    k = rounded(np.abs(k) * np.linspace(0, 4, 900)[None, :, None])
    found = run_attention(unit, q, k, v, heads=1)
    assert_as_good_as_rounding(found, attention(q, k, v, 1))


@each_unit()
@pytest.mark.parametrize("form", [(1, 1), (2, 1), (1, 33), (2, 33)])
@pytest.mark.parametrize("forbidden", [-np.inf, np.finfo(np.float32).min, -1e4])
def test_mask(unit, form, forbidden):
    shape = (2, 33, 300, 2, 24)
    q, k, v, rng = numbers(shape)
    mask = rng.standard_normal((form[0], 1, form[1], 300)).astype(np.float32)
    mask[rng.random(mask.shape) < 0.4] = forbidden
    mask[..., 5] = 0.0
    found = run_attention(unit, q, k, v, mask, heads=2)
    with np.errstate(over="ignore"):
        exact = attention(q, k, v, 2, mask=mask.astype(float))
    assert_as_good_as_rounding(found, exact)


@each_unit()
def test_where_a_mask_forbids_everything_all_keys_count_alike(unit):
    q, k, v, _ = numbers((1, 7, 50, 1, 16))
    mask = np.full((1, 1, 1, 50), -np.inf, np.float32)
    found = run_attention(unit, q, k, v, mask, heads=1)
    exact = np.broadcast_to(v.astype(float).mean(1, keepdims=True), found.shape)
    assert error(found, exact) < 2.0**-7


@each_unit()
@pytest.mark.parametrize("length", [1, 31, 77, 300])
def test_causal(unit, length):
    q, k, v, _ = numbers((2, length, length, 2, 40))
    found = run_attention(unit, q, k, v, heads=2, causal=1)
    assert_as_good_as_rounding(found, attention(q, k, v, 2, causal=True))


@each_unit()
def test_arrays_side_by_side(unit):
    """All of q, k, v in one array, and k with v: only strides differ, so do no bits."""
    q, k, v, _ = numbers((2, 60, 60, 2, 24))
    apart = run_attention(unit, q, k, v, heads=2, scale=0.3)
    assert_as_good_as_rounding(apart, attention(q, k, v, 2, 0.3))
    packed = run_attention(unit, np.concatenate([q, k, v], -1), heads=2, scale=0.3)
    assert np.array_equal(packed, apart)
    pair = run_attention(unit, q, np.concatenate([k, v], -1), heads=2, scale=0.3)
    assert np.array_equal(pair, apart)


@each_unit()
def test_a_wrong_key_or_value_stays_in_its_head(unit):
    q, k, v, _ = numbers((1, 40, 70, 3, 20))
    v[0, 69, 25] = np.nan
    k[0, 3, 45] = np.nan
    found = run_attention(unit, q, k, v, heads=3)
    is_wrong = np.isnan(found[0])
    assert not is_wrong[:, :20].any()
    assert is_wrong[:, 25].all()
    assert is_wrong[:, 20:40].sum() == 40
    assert is_wrong[:, 40:].all()


def test_float32_stays_float32():
    q, k, v, rng = numbers((2, 20, 30, 2, 12))
    q = rng.standard_normal(q.shape, np.float32)
    inputs = {"q": q, "k": k, "v": v}
    found = run("scalar", "Attention", inputs, {}, rank=3, heads=2)
    assert error(found, attention(q, k, v, 2)) < 1e-6
