"""Sizes as polynomials: they compute what numbers would."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from textopia_fast.graph.dims import (
    Dim,
    Size,
    evaluate,
    fact_of,
    floor_div,
    numbers,
    simpler,
    symbols_of,
)

H, W, B = Dim.symbol("height"), Dim.symbol("width"), Dim.symbol("batch")
VALUES = {"height": 64, "width": 48, "batch": 3}


def combine(parts: tuple[str, Size, Size]) -> Size:
    sign, a, b = parts
    return {"+": a + b, "-": a - b, "*": a * b}[sign]


leaves = st.one_of(st.integers(-6, 6), st.sampled_from([H, W, B]))
sizes = st.recursive(
    leaves,
    lambda inner: st.tuples(st.sampled_from("+-*"), inner, inner).map(combine),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(sizes, sizes, st.sampled_from("+-*"))
def test_arithmetic_is_that_of_the_numbers(a: Size, b: Size, sign: str) -> None:
    x, y = evaluate(a, VALUES), evaluate(b, VALUES)
    expected = {"+": x + y, "-": x - y, "*": x * y}[sign]
    assert evaluate(combine((sign, a, b)), VALUES) == expected


@settings(max_examples=60, deadline=None)
@given(sizes, sizes)
def test_a_product_divides_by_its_factors(a: Size, b: Size) -> None:
    if evaluate(b, VALUES) != 0 and b != 0:
        assert evaluate(floor_div(a * b, b), VALUES) == evaluate(a, VALUES)


def test_equal_polynomials_are_equal_objects() -> None:
    assert (H + 1) * (W + 1) == W * H + H + 1 + W
    assert H - H == 0
    assert hash(H * W) == hash(W * H)
    assert (H + 2) * 3 - 6 == 3 * H


def test_division_that_leaves_a_rest_is_kept() -> None:
    half = floor_div(H - 1, 2) + 1
    assert [evaluate(half, {"height": n}) for n in (1, 2, 63, 64)] == [1, 1, 32, 32]
    assert floor_div(4 * H * W, 2 * W) == 2 * H
    assert floor_div((H + 1) * (W + 2) * 8, (W + 2) * 4) == 2 * H + 2
    assert set(symbols_of(floor_div(H, W))) == {"height", "width"}


def test_a_fact_replaces_a_quotient() -> None:
    """The up path of a U-Net: twice the halved height equals the height of the skip."""
    halved = floor_div(H - 1, 2)
    fact = fact_of(2 * halved + 2, H)
    assert fact is not None
    assert fact.applied((2 * halved + 2) * W) == H * W
    assert fact.applied(4 * halved * B) == 2 * (H - 2) * B
    assert fact.applied(halved) == halved  # half of the fact is not a whole number of it
    assert fact_of(H, W) is None


def test_which_of_two_sizes_stands() -> None:
    assert simpler(H, 64) == 64
    assert simpler(2 * floor_div(H, 2), H) == H
    assert numbers((2, 3)) == (2, 3)
    assert numbers((2, H)) is None
    with pytest.raises(KeyError):
        evaluate(H, {})
