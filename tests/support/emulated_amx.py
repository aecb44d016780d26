"""Runs a command on a CPU that has AVX-512 and no AMX as if it had: amx_emulator.c is preloaded.

python -m tests.support.emulated_amx pytest tests/ops
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from textopia_fast import _core

SOURCE = Path(__file__).parent / "amx_emulator.c"

# True in a process that runs on the emulator.
IS_EMULATED = hasattr(ctypes.CDLL(None), "textopia_emulated_amx")


def why_not() -> str:
    """Why the emulator is of no use here; empty where it is."""
    if IS_EMULATED:
        return "this process runs on the emulator already"
    if "amx_tile" in _core.cpu_features():
        return "this CPU has AMX itself"
    if "avx512_bf16" not in _core.supported_matrix_units():
        return "no avx512_bf16 here"
    return "" if compiler() else "no C compiler here"


def compiler() -> str | None:
    return os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")


def build(folder: Path) -> Path:
    """The compiled emulator, in `folder`."""
    library = folder / "amx_emulator.so"
    flags = ["-O2", "-shared", "-fPIC", "-mavx512f", "-mfma"]
    command = [str(compiler()), *flags, str(SOURCE), "-o", str(library), "-ldl"]
    subprocess.run(command, check=True)
    return library


def environment(library: Path) -> Mapping[str, str]:
    """This process's environment with the emulator, and without what forbids AMX."""
    variables = {**os.environ, "LD_PRELOAD": str(library)}
    variables.pop("TEXTOPIA_FORCE_ISA", None)
    return variables


def emulated_instructions() -> int:
    """How many AMX instructions this process has run on the emulator."""
    count = ctypes.CDLL(None).textopia_emulated_instructions
    count.restype = ctypes.c_uint64
    return int(count())


def main(command: Sequence[str]) -> int:
    """Runs `command`, or says why not; its exit status."""
    reason = why_not()
    if reason:
        print(f"not run on emulated AMX: {reason}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(command, env=environment(build(Path(folder)))).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
