"""The code that drives AMX tiles, run over an emulation of the tiles: everything but the eight
instructions themselves is tested on a machine without AMX too."""

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
from tests.ops.test_attention import attention
from tests.ops.test_attention import numbers as attention_numbers
from tests.ops.test_conv import SHAPES as CONV_SHAPES
from tests.ops.test_conv import convolution
from tests.ops.test_conv import numbers as conv_numbers
from tests.ops.test_linear import SHAPES as LINEAR_SHAPES
from tests.ops.test_linear import numbers as linear_numbers
from tests.support.fused import assert_as_good_as_rounding, from_bf16, rounded, to_bf16
from textopia_fast import _core

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "tests/support/emulated_tiles.cc"
FLAGS = "-std=c++20 -O2 -shared -fPIC -DTEXTOPIA_X86=1 -mavx512f -mavx512bw -mavx512dq -mavx512vl"
FLAGS += " -mavx512bf16 -mfma -ffp-contract=off"  # the core rounds every sum, too


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        pytest.skip("no C++ compiler here")
    if "avx512_bf16" not in _core.supported_matrix_units():
        pytest.skip("no avx512_bf16 here")
    library = tmp_path_factory.mktemp("tiles") / "emulated_tiles.so"
    command = [compiler, *FLAGS.split(), f"-I{ROOT / 'csrc'}"]
    subprocess.run([*command, str(SOURCE), "-o", str(library)], check=True)
    loaded = ctypes.CDLL(str(library))
    yield loaded
    assert loaded.emulated_misuses() == 0


def pointer(array):
    return None if array is None else array.ctypes.data_as(ctypes.c_void_p)


def integers(*values):
    return (ctypes.c_int64 * len(values))(*values)


@pytest.mark.parametrize(("m", "k", "n"), LINEAR_SHAPES)
def test_linear(tiles, m, k, n):
    x, weight, bias, rng = linear_numbers(m, k, n)
    residual = rounded(rng.standard_normal((m, n)))
    bits, residual_bits, panels = to_bf16(x), to_bf16(residual), _core.pack_linear(weight)
    out = np.zeros((m, n), np.uint16)
    arrays = (bits, panels, bias, residual_bits, out)
    sizes = (ctypes.c_int64(size) for size in (m, k, n))
    tiles.emulated_linear(*map(pointer, arrays), *sizes, 0)
    exact = x.astype(float) @ weight.T.astype(float) + bias + residual
    assert_as_good_as_rounding(from_bf16(out), exact)


def test_gates(tiles):
    m, k, n = 45, 70, 37
    x, weight, bias, _ = linear_numbers(m, k, 2 * n)
    bits, panels = to_bf16(x), _core.pack_linear(weight, geglu=True)
    out = np.zeros((m, n), np.uint16)
    sizes = (ctypes.c_int64(size) for size in (m, k, n))
    tiles.emulated_linear(*map(pointer, (bits, panels, bias, None, out)), *sizes, 1)
    product = x.astype(float) @ weight.T.astype(float) + bias
    gate = product[:, n:]
    cumulative = 0.5 * (1 + np.vectorize(erf)(gate / np.sqrt(2)))
    assert_as_good_as_rounding(from_bf16(out), product[:, :n] * gate * cumulative)


@pytest.mark.parametrize("shape", CONV_SHAPES)
def test_conv(tiles, shape):
    x, weight, bias, rng = conv_numbers(shape)
    time_bias = rounded(rng.standard_normal((shape[0], shape[4])))
    exact = convolution(x, weight, *shape[6:]) + bias + time_bias[:, None, None]
    out = np.zeros(exact.shape, np.uint16)
    arrays = (
        to_bf16(x),
        _core.pack_conv(weight, upsample=bool(shape[7])),
        bias,
        to_bf16(time_bias),
    )
    tiles.emulated_conv(*map(pointer, arrays), integers(*shape), pointer(out))
    assert_as_good_as_rounding(from_bf16(out), exact, factor=3.0 if shape[7] else 2.0)


@pytest.mark.parametrize("shape", ATTENTION_SHAPES)
@pytest.mark.parametrize("causal", [False, True])
def test_attention(tiles, shape, causal):
    q, k, v, _ = attention_numbers(shape)
    out = np.zeros(q.shape, np.uint16)
    arrays = [to_bf16(array) for array in (q, k, v)]
    tiles.emulated_attention(*map(pointer, arrays), integers(*shape, causal), pointer(out))
    exact = attention(q, k, v, shape[3], causal=causal)
    assert_as_good_as_rounding(from_bf16(out), exact)
