"""What this machine can do at most: multiply in registers, and read memory.

`python -m benchmarks.micro.matrix` prints both.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from textopia_fast import _core


def peak_gflops(unit: str) -> float | None:
    """What one core multiplies out of its nearest cache, in GFLOP/s; None without a compiler."""
    if unit == "scalar":
        return None
    return _measure("matrix_peak.cc", "-mavx512f -mavx512bw -mavx512bf16", unit)


def memory_gbs(threads: int) -> float | None:
    """What all threads together read from memory, in GB/s; None without a compiler."""
    return _measure("memory_stream.cc", "-pthread", str(threads))


def _measure(source: str, flags: str, argument: str) -> float | None:
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "measure")
        command = [compiler, "-std=c++20", "-O3", *flags.split()]
        subprocess.run([*command, str(Path(__file__).with_name(source)), "-o", program], check=True)
        return float(subprocess.run([program, argument], check=True, capture_output=True).stdout)


def main() -> None:
    unit, threads = _core.active_matrix_unit(), _core.usable_cpus()
    print(f"{unit}: {peak_gflops(unit)} GFLOP/s per core")
    print(f"memory: {memory_gbs(threads)} GB/s read by {threads} threads")


if __name__ == "__main__":
    main()
