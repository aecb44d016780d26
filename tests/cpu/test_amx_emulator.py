"""The emulator of AMX instructions, and the shipped kernels on it, on machines without AMX."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.emulated_amx import build, compiler, environment, why_not

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests/support/amx_program.c"

# Rows, pairs or quadruples of a row of A, columns.
SIZES = [(16, 16, 16), (1, 1, 1), (5, 3, 16), (16, 7, 2), (9, 16, 11)]
INTEGERS = {"tdpbssd": "bb", "tdpbsud": "bB", "tdpbusd": "Bb", "tdpbuud": "BB"}  # types of A and B


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
    if why_not():
        pytest.skip(why_not())
    return build(tmp_path_factory.mktemp("emulator"))


@pytest.fixture(scope="module")
def program(emulator):
    target = emulator.parent / "amx_program"
    flags = ["-O1", "-fno-pie", "-no-pie"]  # an address without a register needs fixed places
    subprocess.run([str(compiler()), *flags, str(PROGRAM), "-o", str(target)], check=True)

    def call(name: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        variables = environment(emulator)
        return subprocess.run([target, name], input=data, capture_output=True, env=variables)

    return call


def configuration(rows: int, groups: int, columns: int) -> bytes:
    """Of the tiles 0 (sums), 1 (A) and 2 (B)."""
    row_bytes = np.zeros(16, np.uint16)
    row_bytes[:3] = 4 * columns, 4 * groups, 4 * columns
    row_counts = np.zeros(16, np.uint8)
    row_counts[:3] = rows, rows, groups
    return bytes([1, *[0] * 15]) + row_bytes.tobytes() + row_counts.tobytes()


def multiply(program, name, size, sums, a, b):
    """All three tiles are 16 rows of 64 bytes here; those of `size` are used."""
    data = configuration(*size) + sums.tobytes() + a.tobytes() + b.tobytes()
    result = program(name, data)
    assert result.returncode == 0, result.stderr
    found = np.frombuffer(result.stdout, sums.dtype).reshape(16, 16)
    rows, _, columns = size
    assert not found[rows:].any()
    assert not found[:, columns:].any()
    return found[:rows, :columns]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", INTEGERS)
def test_products_of_bytes(program, name, size):
    rng = np.random.default_rng(size)
    rows, groups, columns = size
    a, b = (rng.integers(0, 256, (16, 64), np.uint8).view(kind) for kind in INTEGERS[name])
    sums = rng.integers(-(2**31), 2**31, (16, 16), np.int32)  # some products make them wrap
    found = multiply(program, name, size, sums, a, b)
    left = a[:rows, : 4 * groups].astype(np.int64).reshape(rows, groups, 4)
    right = b[:groups, : 4 * columns].astype(np.int64).reshape(groups, columns, 4)
    exact = sums[:rows, :columns] + np.einsum("mki,kni->mn", left, right)
    np.testing.assert_array_equal(found, exact.astype(np.int32))


def flushed(x):
    return np.where(np.abs(x) < np.finfo(np.float32).tiny, x * np.float32(0), x)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scale", [1.0, 1.2e-19], ids=["normal", "denormal"])
def test_products_of_pairs(program, size, scale):
    """Even and odd products have sums of their own; denormals count as zero at each step."""
    rng = np.random.default_rng(size)
    rows, groups, columns = size
    bits = [
        (rng.standard_normal((16, 32), np.float32) * np.float32(scale)).view(np.uint32) >> 16
        for _ in "ab"
    ]
    bits[0][0, 0] = 0x0001  # a denormal factor
    sums = (rng.standard_normal((16, 16), np.float32) * np.float32(scale**2)).astype(np.float32)
    a, b = (x.astype(np.uint16) for x in bits)
    found = multiply(program, "tdpbf16ps", size, sums, a, b)
    left, right = (flushed((x << 16).view(np.float32)) for x in bits)
    parts = np.zeros((2, rows, columns), np.float32)
    for odd in (0, 1):
        for k in range(groups):
            x, y = left[:rows, None, 2 * k + odd], right[None, k, odd : 2 * columns : 2]
            # fused: the product is exact in float64, and so is the sum with the little that is kept
            total = parts[odd].astype(float) + x.astype(float) * y.astype(float)
            parts[odd] = flushed(total.astype(np.float32))
    expected = flushed(flushed(sums[:rows, :columns]) + flushed(parts[0] + parts[1]))
    np.testing.assert_array_equal(found, expected)


def test_every_form_of_address(program):
    result = program("addresses")
    assert (result.returncode, result.stdout) == (0, b"")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("not asked", "ldtilecfg: the operating system was not asked for tiles"),
        ("unconfigured", "tilezero: no tiles are configured"),
        ("released", "tilezero: no tiles are configured"),
        ("palette", "ldtilecfg: the palette is neither 0 nor 1"),
        ("reserved", "ldtilecfg: a reserved byte is not 0"),
        ("rows", "ldtilecfg: a tile has at most 16 rows of 64 bytes"),
        ("row bytes", "ldtilecfg: a tile has at most 16 rows of 64 bytes"),
        ("half a tile", "ldtilecfg: a tile has rows without bytes, or bytes without rows"),
        ("ninth tile", "ldtilecfg: there are 8 tiles"),
        ("same tile", "tdpbf16ps: two operands are the same tile"),
        ("columns", "tdpbf16ps: sums and second operand differ in columns"),
        ("inner size", "tdpbssd: the second operand has not a row per group of the first"),
    ],
)
def test_what_a_cpu_refuses_ends_the_process(program, name, message):
    result = program(name)
    assert result.returncode == -signal.SIGABRT
    assert result.stderr.decode() == f"amx_emulator: {message}\n"


def test_other_illegal_instructions_stay_illegal(program):
    assert program("illegal").returncode == -signal.SIGILL


def test_the_shipped_kernels_run_on_it(emulator):
    """A few; `.ci/run` runs all that use the matrix units."""
    tests = ["tests/ops/test_linear.py::test_linear_with_bias_and_residual", "-k", "amx_bf16"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    variables = environment(emulator)
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=variables)
    assert result.returncode == 0, result.stdout
    assert "passed" in result.stdout
    assert "skipped" not in result.stdout
