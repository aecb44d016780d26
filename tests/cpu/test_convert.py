"""Half precision: every half there is, every rounding border, and every instruction set alike."""

from __future__ import annotations

import numpy as np
import pytest

from textopia_fast import _core, errors

ISAS = _core.supported_isas()
ALL_WORDS = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)


def random_floats():
    """All exponents, both signs, NaN and infinity among them."""
    bits = np.random.default_rng(1).integers(0, 1 << 32, 300_000, dtype=np.uint64)
    return bits.astype(np.uint32).view(np.float32)


def neighbours(values):
    """The floats just below and above each finite value, and the value."""
    return np.concatenate(
        [
            np.nextafter(values, np.float32(-np.inf)),
            values,
            np.nextafter(values, np.float32(np.inf)),
        ]
    )


def half_borders():
    """Every half, every midpoint between two halves, and the floats next to them."""
    halves = ALL_WORDS[:0x7C01].view(np.float16).astype(np.float32)
    halves[-1] = (
        65536.0  # where the next half would be, so that its midpoint decides about overflow
    )
    middles = (halves[:-1] + halves[1:]) / np.float32(2)
    positive = neighbours(np.concatenate([halves, middles]))
    return np.concatenate([positive, -positive])


def numpy_half(values):
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(np.float16).view(np.uint16)


def bfloat16_reference(values):
    """The nearer of two candidates in float64, the even one when both are as near."""
    bits = values.view(np.uint32).astype(np.uint64)
    low, high = (bits >> 16), (bits >> 16) + 1
    exact = np.abs(values.astype(np.float64))

    def magnitude(words):
        # Beyond the largest number stands 2^128, a candidate like any other.
        inside = ((words & 0x7FFF) << 16).astype(np.uint32).view(np.float32).astype(np.float64)
        return np.where((words & 0x7FFF) == 0x7F80, 2.0**128, inside)

    below, above = exact - magnitude(low), magnitude(high) - exact
    return np.where((below < above) | ((below == above) & (low % 2 == 0)), low, high).astype(
        np.uint16
    )


@pytest.mark.parametrize("isa", ISAS)
def test_every_half_widens_as_in_numpy(isa):
    found = _core.half_to_float(isa, ALL_WORDS)
    expected = ALL_WORDS.view(np.float16).astype(np.float32)
    is_nan = np.isnan(expected)
    assert (np.isnan(found) == is_nan).all()
    np.testing.assert_array_equal(found.view(np.uint32)[~is_nan], expected.view(np.uint32)[~is_nan])


@pytest.mark.parametrize("isa", ISAS)
def test_halves_come_back(isa):
    found = _core.float_to_half(isa, _core.half_to_float(isa, ALL_WORDS))
    is_nan = np.isnan(ALL_WORDS.view(np.float16))
    np.testing.assert_array_equal(found[~is_nan], ALL_WORDS[~is_nan])
    # A NaN becomes quiet and keeps the rest.
    np.testing.assert_array_equal(found[is_nan], ALL_WORDS[is_nan] | 0x200)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("values", [half_borders(), random_floats()], ids=["borders", "random"])
def test_rounding_to_half_is_that_of_numpy(isa, values):
    found = _core.float_to_half(isa, values)
    is_nan = np.isnan(values)
    np.testing.assert_array_equal(found[~is_nan], numpy_half(values[~is_nan]))
    assert np.isnan(found[is_nan].view(np.float16)).all()


@pytest.mark.parametrize("isa", ISAS)
def test_rounding_to_bfloat16(isa):
    below = np.arange(0x7F80, dtype=np.uint32) << 16
    middles = (below + 0x8000).view(np.float32)
    positive = np.concatenate([below.view(np.float32), middles, *np.split(neighbours(middles), 3)])
    random = random_floats()
    values = np.concatenate([positive, -positive, random[np.isfinite(random)]])
    np.testing.assert_array_equal(_core.float_to_bfloat16(isa, values), bfloat16_reference(values))


@pytest.mark.parametrize("isa", ISAS)
def test_bfloat16_special_values_and_back(isa):
    special = np.array([np.inf, -np.inf, 0.0, -0.0], np.float32)
    assert _core.float_to_bfloat16(isa, special).tolist() == [0x7F80, 0xFF80, 0x0000, 0x8000]
    # Payload bits that lie only in the lost half must not turn a NaN into infinity.
    nans = np.array([0x7F800001, 0xFF80FFFF, 0x7FFFFFFF], np.uint32).view(np.float32)
    assert _core.float_to_bfloat16(isa, nans).tolist() == [0x7FC0, 0xFFC0, 0x7FFF]
    wide = _core.bfloat16_to_float(isa, ALL_WORDS)
    np.testing.assert_array_equal(wide.view(np.uint32), ALL_WORDS.astype(np.uint32) << 16)


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 15, 16, 17, 1000])
@pytest.mark.parametrize("isa", ISAS)
def test_all_isas_give_the_same_bits_at_any_length(isa, count):
    floats = np.ascontiguousarray(random_floats()[:count])
    words = np.ascontiguousarray(ALL_WORDS[31_000 : 31_000 + count])
    for name, values in [
        ("float_to_half", floats),
        ("float_to_bfloat16", floats),
        ("half_to_float", words),
        ("bfloat16_to_float", words),
    ]:
        function = getattr(_core, name)
        found, expected = function(isa, values), function("scalar", values)
        assert found.shape == (count,)
        assert found.tobytes() == expected.tobytes()


def test_shapes_are_kept_and_wrong_arrays_are_refused():
    assert _core.float_to_half("scalar", np.zeros((2, 3), np.float32)).shape == (2, 3)
    with pytest.raises(errors.InvalidRequestError, match="float64"):
        _core.float_to_half("scalar", np.zeros(3))
    with pytest.raises(errors.InvalidRequestError, match="uint16"):
        _core.half_to_float("scalar", np.zeros(3, np.float16))
    with pytest.raises(errors.InvalidRequestError, match="contiguous"):
        _core.float_to_half("scalar", np.zeros(6, np.float32)[::2])
