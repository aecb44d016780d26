"""The code that drives AMX tiles, run over tiles that are arrays, on any machine with AVX-512.

Where the instructions themselves are emulated (tests/support/emulated_amx.py), the kernels as they
are shipped must give the same bits.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from math import erf
from pathlib import Path

import numpy as np
import pytest

from tests.ops.test_attention import SHAPES as ATTENTION_SHAPES
from tests.ops.test_attention import attention, run_attention
from tests.ops.test_attention import numbers as attention_numbers
from tests.ops.test_conv import SHAPES as CONV_SHAPES
from tests.ops.test_conv import attributes_of, convolution
from tests.ops.test_conv import numbers as conv_numbers
from tests.ops.test_linear import SHAPES as LINEAR_SHAPES
from tests.ops.test_linear import numbers as linear_numbers
from tests.support.emulated_amx import IS_EMULATED, emulated_instructions
from tests.support.fused import assert_as_good_as_rounding, from_bf16, rounded, run, to_bf16
from textopia_fast import _core

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "tests/support/emulated_tiles.cc"
FLAGS = "-std=c++20 -O2 -shared -fPIC -DTEXTOPIA_X86=1 -mavx512f -mavx512bw -mavx512dq -mavx512vl"
FLAGS += " -mavx512bf16 -mfma -ffp-contract=off"  # the core rounds every sum, too
on_instructions = pytest.mark.skipif(not IS_EMULATED, reason="not run on emulated AMX instructions")


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler here")
    if "avx512_bf16" not in _core.supported_matrix_units():
        pytest.skip("no avx512_bf16 here")
    library = tmp_path_factory.mktemp("tiles") / "emulated_tiles.so"
    command = [compiler, *FLAGS.split(), f"-I{ROOT / 'csrc'}", str(SOURCE), "-o", str(library)]
    subprocess.run(command, check=True)
    loaded = ctypes.CDLL(str(library))
    yield loaded
    assert loaded.emulated_misuses() == 0


def pointer(array):
    return None if array is None else array.ctypes.data_as(ctypes.c_void_p)


def integers(*values):
    return (ctypes.c_int64 * len(values))(*values)


def linear(tiles, x, panels, bias, residual, columns):
    """Linear, or LinearGeglu without a residual, over tiles that are arrays."""
    out = np.zeros((len(x), columns), np.uint16)
    arrays = (x, panels, bias, residual, out)
    sizes = (ctypes.c_int64(size) for size in (*x.shape, columns))
    tiles.emulated_linear(*map(pointer, arrays), *sizes, int(residual is None))
    return from_bf16(out)


def conv(tiles, shape, x, panels, bias, time_bias, sizes):
    out = np.zeros(sizes, np.uint16)
    arrays = (x, panels, bias, time_bias)
    tiles.emulated_conv(*map(pointer, arrays), integers(*shape), pointer(out))
    return from_bf16(out)


def attend(tiles, shape, q, k, v, causal):
    out = np.zeros(q.shape, np.uint16)
    arrays = [to_bf16(array) for array in (q, k, v)]
    tiles.emulated_attention(*map(pointer, arrays), integers(*shape, causal), pointer(out))
    return from_bf16(out)


def linear_arrays(m, k, n):
    x, weight, bias, rng = linear_numbers(m, k, n)
    residual = rounded(rng.standard_normal((m, n)))
    exact = x.astype(float) @ weight.T.astype(float) + bias + residual
    return to_bf16(x), _core.pack_linear(weight), bias, to_bf16(residual), exact


def gated_arrays(m, k, n):
    x, weight, bias, _ = linear_numbers(m, k, 2 * n)
    product = x.astype(float) @ weight.T.astype(float) + bias
    gate = product[:, n:]
    exact = product[:, :n] * gate * 0.5 * (1 + np.vectorize(erf)(gate / np.sqrt(2)))
    return to_bf16(x), _core.pack_linear(weight, geglu=True), bias, exact


def conv_arrays(shape):
    x, weight, bias, rng = conv_numbers(shape)
    time_bias = rounded(rng.standard_normal((shape[0], shape[4])))
    exact = convolution(x, weight, *shape[6:]) + bias + time_bias[:, None, None]
    panels = _core.pack_conv(weight, upsample=bool(shape[7]))
    return to_bf16(x), panels, bias, to_bf16(time_bias), exact


@pytest.mark.parametrize(("m", "k", "n"), LINEAR_SHAPES)
def test_linear(tiles, m, k, n):
    *arrays, exact = linear_arrays(m, k, n)
    assert_as_good_as_rounding(linear(tiles, *arrays, n), exact)


def test_gates(tiles):
    *arrays, exact = gated_arrays(45, 70, 37)
    assert_as_good_as_rounding(linear(tiles, *arrays, None, 37), exact)


@pytest.mark.parametrize("shape", CONV_SHAPES)
def test_conv(tiles, shape):
    *arrays, exact = conv_arrays(shape)
    found = conv(tiles, shape, *arrays, exact.shape)
    assert_as_good_as_rounding(found, exact, factor=3.0 if shape[7] else 2.0)


@pytest.mark.parametrize("shape", ATTENTION_SHAPES)
@pytest.mark.parametrize("causal", [False, True])
def test_attention(tiles, shape, causal):
    q, k, v, _ = attention_numbers(shape)
    exact = attention(q, k, v, shape[3], causal=causal)
    assert_as_good_as_rounding(attend(tiles, shape, q, k, v, causal), exact)


@pytest.fixture
def instructions():
    """Counts the AMX instructions of a test: without any it would compare nothing."""
    before = emulated_instructions()
    yield
    assert emulated_instructions() > before


@on_instructions
@pytest.mark.parametrize(("m", "k", "n"), LINEAR_SHAPES)
def test_linear_bits(tiles, instructions, m, k, n):
    x, panels, bias, residual, _ = linear_arrays(m, k, n)
    inputs = {"x": x, "bias": bias, "residual": residual}
    sizes = {"in_features": k, "out_features": n, "weight_format": "bf16_panels"}
    found = run("amx_bf16", "Linear", inputs, {"w": panels}, rank=2, **sizes)
    np.testing.assert_array_equal(found, linear(tiles, x, panels, bias, residual, n))


@on_instructions
def test_gate_bits(tiles, instructions):
    x, panels, bias, _ = gated_arrays(45, 70, 37)
    sizes = {"in_features": 70, "out_features": 37, "weight_format": "bf16_panels"}
    inputs = {"x": x, "bias": bias}
    found = run("amx_bf16", "LinearGeglu", inputs, {"w": panels}, rank=2, **sizes)
    np.testing.assert_array_equal(found, linear(tiles, x, panels, bias, None, 37))


@on_instructions
@pytest.mark.parametrize("shape", CONV_SHAPES)
def test_conv_bits(tiles, instructions, shape):
    x, panels, bias, time_bias, exact = conv_arrays(shape)
    inputs = {"x": x, "bias": bias, "time_bias": time_bias}
    form = {"weight_format": "bf16_panels", **attributes_of(shape)}
    found = run("amx_bf16", "Conv", inputs, {"w": panels}, rank=4, **form)
    expected = conv(tiles, shape, x, panels, bias, time_bias, exact.shape)
    np.testing.assert_array_equal(found, expected)


@on_instructions
@pytest.mark.parametrize("shape", ATTENTION_SHAPES)
@pytest.mark.parametrize("causal", [False, True])
def test_attention_bits(tiles, instructions, shape, causal):
    q, k, v, _ = attention_numbers(shape)
    found = run_attention("amx_bf16", q, k, v, heads=shape[3], causal=int(causal))
    np.testing.assert_array_equal(found, attend(tiles, shape, q, k, v, causal))
