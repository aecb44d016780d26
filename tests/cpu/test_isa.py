"""Detection of instruction sets, and the variable that forces one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.emulated_amx import IS_EMULATED
from textopia_fast import _core


def run_with_isa(name: str, show: str = "active_isa") -> subprocess.CompletedProcess[str]:
    program = (
        "from textopia_fast import _core, errors\n"
        "try:\n"
        f"    print(_core.{show}())\n"
        "except errors.ConfigurationError as error:\n"
        "    print('refused:', error)\n"
    )
    environment = {**os.environ, "TEXTOPIA_FORCE_ISA": name}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )


def test_supported_isas_end_with_scalar_and_hold_the_active_one():
    isas = _core.supported_isas()
    assert isas == [isa for isa in ("avx512", "avx2", "scalar") if isa in isas]
    assert isas[-1] == "scalar"
    assert _core.active_isa() in isas


@pytest.mark.skipif(IS_EMULATED, reason="emulated AMX is no feature that the kernel lists")
def test_features_agree_with_the_kernel():
    """Linux lists a feature only when CPU and kernel support it: the rule of the core too."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = (
        [
            line.split(":")[1].split()
            for line in cpuinfo.read_text().splitlines()
            if line[:5] == "flags"
        ]
        if cpuinfo.exists()
        else []
    )
    if not flags:
        pytest.skip("no x86 /proc/cpuinfo here")
    found = set(_core.cpu_features())
    known = {
        *("ssse3", "sse4_1", "sse4_2", "avx", "f16c", "fma", "avx2", "bmi2", "avx_vnni", "avx512f"),
        *("avx512dq", "avx512bw", "avx512vl", "avx512vbmi", "avx512_vnni", "avx512_bf16"),
        *("avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    }
    # Older kernels do not know the newest names; amx_fp16 is not listed by all.
    assert found - {"amx_fp16"} == known & set(flags[0])


@pytest.mark.parametrize("isa", _core.supported_isas())
def test_an_isa_can_be_forced(isa):
    assert run_with_isa(isa).stdout.strip() == isa


def test_an_empty_variable_forces_nothing():
    assert run_with_isa("").stdout.strip() == _core.supported_isas()[0]


@pytest.mark.parametrize("name", ["sse9", "AVX2", "scalar "])
def test_an_unknown_isa_is_refused_by_name(name):
    answer = run_with_isa(name).stdout
    assert answer.startswith("refused:")
    assert "TEXTOPIA_FORCE_ISA" in answer
    assert name.strip() in answer
    assert "scalar" in answer


def test_supported_matrix_units_end_with_scalar_and_hold_the_active_one():
    units = _core.supported_matrix_units()
    assert units == [u for u in ("amx_bf16", "avx512_bf16", "scalar") if u in units]
    assert units[-1] == "scalar"
    assert _core.active_matrix_unit() in units


def test_matrix_units_follow_the_features():
    """AMX may be there and refused by the kernel, which then has to be said."""
    units, features = _core.supported_matrix_units(), _core.cpu_features()
    has_pairs = {"avx512_bf16", "avx512f", "avx512bw", "avx512dq", "avx512vl"} <= set(features)
    assert ("avx512_bf16" in units) == has_pairs
    has_tiles = has_pairs and {"amx_tile", "amx_bf16"} <= set(features)
    assert has_tiles == ("amx_bf16" in units or bool(_core.amx_refusal()))


def test_the_int8_unit_goes_with_the_matrix_unit():
    needed = {"amx_bf16": "amx_int8", "avx512_bf16": "avx512_vnni"}
    wanted = needed.get(_core.active_matrix_unit(), "scalar")
    assert _core.int8_unit() == (wanted if wanted in _core.cpu_features() else "scalar")
    before = _core.active_matrix_unit()
    _core.set_matrix_unit("scalar")
    try:
        assert _core.int8_unit() == "scalar"
    finally:
        _core.set_matrix_unit(before)


@pytest.mark.parametrize("isa", _core.supported_isas())
def test_a_forced_isa_limits_the_matrix_unit(isa):
    units = [u for u in _core.supported_matrix_units() if u != "amx_bf16"]
    expected = units[0] if isa == "avx512" else "scalar"
    assert run_with_isa(isa, "active_matrix_unit").stdout.strip() == expected
    has_bytes = expected == "avx512_bf16" and "avx512_vnni" in _core.cpu_features()
    found = run_with_isa(isa, "int8_unit").stdout.strip()
    assert found == ("avx512_vnni" if has_bytes else "scalar")
