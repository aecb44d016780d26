"""Files compiled for one ISA may export nothing but our kernels.

An inline function of a header that such a file emits could be the copy that the linker keeps for
everybody, and with it AVX-512 instructions on a CPU that has none.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXPORTS = {
    "combine_avx2": {"textopia::cpu::combine_avx2"},
    "combine_avx512": {"textopia::cpu::combine_avx512"},
    "convert_avx2": {"textopia::cpu::convert_kernels_avx2"},
    "matrix_amx_bf16": {"textopia::cpu::matrix_kernels_amx_bf16"},
    "matrix_amx_int8": {"textopia::cpu::matrix_kernels_amx_int8"},
    "matrix_avx512_bf16": {"textopia::cpu::matrix_kernels_avx512_bf16"},
    "matrix_avx512_vnni": {"textopia::cpu::matrix_kernels_avx512_vnni"},
    "norm_avx512_bf16": {"textopia::cpu::norm_kernels_avx512_bf16"},
    "normal_avx2": {"textopia::rng::normal_kernels_avx2"},
    "normal_avx512": {"textopia::rng::normal_kernels_avx512"},
}


def newest_object(stem: str) -> Path | None:
    found = list(ROOT.glob(f"build/*/csrc/CMakeFiles/textopia.dir/*/{stem}.cc.o"))
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


@pytest.mark.parametrize("stem", EXPORTS)
def test_only_the_kernel_is_exported(stem: str) -> None:
    nm, built = shutil.which("nm"), newest_object(stem)
    if nm is None or built is None:
        pytest.skip("needs nm and the object files of a build in build/")
    done = subprocess.run(
        [nm, "--demangle", "--defined-only", "--extern-only", "--format=posix", built],
        capture_output=True,
        text=True,
        check=True,
    )
    names = {line.split("(")[0] for line in done.stdout.splitlines()}
    code = {name for name in names if not name.startswith("DW.ref.")}  # data for the unwinder
    assert code == EXPORTS[stem]


def test_every_file_of_one_isa_is_looked_at() -> None:
    files = {
        path.stem for name in ("avx", "amx") for path in (ROOT / "csrc").glob(f"*/*_{name}*.cc")
    }
    assert files == set(EXPORTS)
