"""The fused update: every instruction set against NumPy, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from textopia_fast import _core, errors

ISAS = _core.supported_isas()
SIZES = [1, 7, 8, 9, 15, 16, 17, 31, 33, 511, 512, 513, 1000, 4099]


def reference(sources, weights, scales):
    """float32, source by source, each product and each sum rounded."""
    total = np.float32(weights[0]) * sources[0]
    for source, weight in zip(sources[1:], weights[1:], strict=True):
        total = total + np.float32(weight) * source
    return [np.float32(scale) * total for scale in scales]


def operands(count, source_count, output_count, seed=0, offset=0):
    """Numbers of many magnitudes in arrays that begin `offset` elements after an allocation."""
    rng = np.random.default_rng([seed, count, source_count])
    sources = []
    for _ in range(source_count):
        values = rng.standard_normal(count + offset) * 10.0 ** rng.uniform(-6, 6, count + offset)
        sources.append(values.astype(np.float32)[offset:])
    weights = rng.standard_normal(source_count).astype(np.float32).tolist()
    scales = [1.0, 0.25, -1.7][:output_count]
    outputs = [np.full(count + offset + 1, 9.0, np.float32)[offset:-1] for _ in range(output_count)]
    return sources, weights, scales, outputs


def assert_same_bits(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.view(np.uint32), other.view(np.uint32))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("count", SIZES)
def test_sizes(isa, count):
    for output_count in (1, 2, 3):
        sources, weights, scales, outputs = operands(count, 3, output_count)
        assert _core.combine(isa, sources, weights, scales, outputs) is True
        assert_same_bits(outputs, reference(sources, weights, scales))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("source_count", range(1, 17))
def test_source_counts(isa, source_count):
    for output_count in (1, 2, 3):
        sources, weights, scales, outputs = operands(100, source_count, output_count)
        assert _core.combine(isa, sources, weights, scales, outputs)
        assert_same_bits(outputs, reference(sources, weights, scales))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("offset", range(1, 17))
def test_no_alignment_is_needed_and_neighbours_stay(isa, offset):
    sources, weights, scales, outputs = operands(67, 2, 2, offset=offset)
    assert _core.combine(isa, sources, weights, scales, outputs)
    assert_same_bits(outputs, reference(sources, weights, scales))
    for output in outputs:
        assert output.base[offset - 1] == 9.0
        assert output.base[-1] == 9.0


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("count", [1, 17, 600])
def test_in_place(isa, count):
    """The output is the first, a middle and the last source; a source may appear twice."""
    for place in range(4):
        sources, weights, scales, _ = operands(count, 3, 1)
        sources.append(sources[1])
        weights.append(0.5)
        expected = reference(sources, weights, scales)
        assert _core.combine(isa, sources, weights, scales, [sources[place]])
        assert_same_bits([sources[place]], expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shifts", [(0, 0), (5, 5), (0, 1)])
def test_beyond_the_caches(isa, shifts):
    """Large enough for stores past the caches; outputs of unlike alignment take the other way."""
    count = 2_900_003
    sources = [np.arange(count, dtype=np.float32)]
    weights, scales = [0.3], [1.0, 0.7]
    room = [np.full(count + 9, 9.0, np.float32) for _ in shifts]
    outputs = [array[shift : shift + count] for array, shift in zip(room, shifts, strict=True)]
    assert _core.combine(isa, sources, weights, scales, outputs)
    assert_same_bits(outputs, reference(sources, weights, scales))
    for array, shift in zip(room, shifts, strict=True):
        assert (array[:shift] == 9.0).all()
        assert (array[shift + count :] == 9.0).all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_number_that_is_not_finite_is_seen_anywhere(isa, bad):
    for count in (1, 7, 16, 37):
        for place in range(count):
            sources, weights, scales, outputs = operands(count, 2, 1)
            sources[1][place] = bad
            assert _core.combine(isa, sources, weights, scales, outputs) is False
            assert np.flatnonzero(~np.isfinite(outputs[0])).tolist() == [place]


@pytest.mark.parametrize("isa", ISAS)
def test_the_limits_of_finite(isa):
    largest = np.full(20, np.finfo(np.float32).max)
    smallest = np.full(20, np.finfo(np.float32).smallest_subnormal)
    output = np.empty(20, np.float32)
    assert _core.combine(isa, [largest], [1.0], [1.0], [output])
    assert (output == largest).all()
    assert not _core.combine(isa, [largest, largest], [1.0, 1.0], [1.0], [output])
    assert not _core.combine(isa, [np.full(20, np.inf, np.float32)], [0.0], [1.0], [output])
    assert _core.combine(isa, [smallest], [-1.0], [1.0], [output])
    assert (output == -smallest).all()


@pytest.mark.parametrize("isa", ISAS)
def test_nothing_to_do(isa):
    empty = np.empty(0, np.float32)
    assert _core.combine(isa, [empty], [1.0], [1.0], [np.empty(0, np.float32)])


def zeros(count=8, dtype=np.float32):
    return np.zeros(count, dtype)


def read_only():
    array = zeros()
    array.flags.writeable = False
    return array


SHARED = np.zeros(9, np.float32)


@pytest.mark.parametrize(
    ("sources", "weights", "scales", "outputs", "words"),
    [
        ([], [], [1.0], [zeros()], "0 sources"),
        ([zeros()] * 17, [1.0] * 17, [1.0], [zeros()], "17 sources"),
        ([zeros()], [1.0], [1.0] * 4, [zeros() for _ in range(4)], "4 outputs"),
        ([zeros()], [1.0], [], [], "0 outputs"),
        ([zeros()], [1.0, 2.0], [1.0], [zeros()], "weights"),
        ([zeros()], [1.0], [1.0, 2.0], [zeros()], "scales"),
        ([zeros(), zeros(9)], [1.0, 1.0], [1.0], [zeros()], "source 1 has 9"),
        ([zeros()], [1.0], [1.0], [zeros(7)], "output 0 has 7"),
        ([zeros(dtype=np.float64)], [1.0], [1.0], [zeros()], "float64"),
        ([zeros(dtype=">f4")], [1.0], [1.0], [zeros()], "float32"),
        ([zeros(16)[::2]], [1.0], [1.0], [zeros()], "contiguous"),
        ([zeros()], [1.0], [1.0], [zeros(16)[::2]], "contiguous"),
        ([zeros()], [1.0], [1.0], [read_only()], "read-only"),
        ([SHARED[1:]], [1.0], [1.0], [SHARED[:-1]], "overlaps"),
        ([zeros()], [1.0], [1.0, 2.0], [SHARED[1:], SHARED[1:]], "overlaps"),
    ],
)
def test_bad_arguments(sources, weights, scales, outputs, words):
    with pytest.raises(errors.InvalidRequestError, match=words):
        _core.combine("scalar", sources, weights, scales, outputs)


def test_an_unknown_isa():
    with pytest.raises(errors.ConfigurationError, match="avx3"):
        _core.combine("avx3", [zeros()], [1.0], [1.0], [zeros()])
