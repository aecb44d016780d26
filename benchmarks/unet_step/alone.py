"""One competitor in a process of its own: seconds to be ready and per step, peak memory.

python -m benchmarks.unet_step.alone COMPETITOR DIRECTORY THREADS STEPS RESULT.npy
"""

from __future__ import annotations

import importlib
import json
import resource
import sys
import time
import warnings
from pathlib import Path

import numpy as np

from benchmarks.timing import NotInstalledError
from benchmarks.unet_step.case import Case


def main(competitor: str, directory: str, threads: str, steps: str, result: str) -> None:
    warnings.simplefilter("ignore")
    module = importlib.import_module(f"benchmarks.unet_step.{competitor}")
    case = Case(Path(directory), int(threads))
    start = time.perf_counter()
    try:
        step = module.make(case)
    except NotInstalledError as error:
        print(json.dumps({"missing": str(error)}))
        return
    ready = time.perf_counter() - start
    np.save(result, step())  # warm-up
    seconds, cpu_seconds = [], []
    for _ in range(int(steps)):
        start, cpu_start = time.perf_counter(), time.process_time()
        step()
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"ready": ready, "seconds": seconds, "cpu_seconds": cpu_seconds}
    print(json.dumps({**found, "peak_bytes": peak, "own_bytes": _own()}))


def _own() -> int | None:
    """Memory that is not a file's pages, which processes share; Linux only."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), None)


if __name__ == "__main__":
    main(*sys.argv[1:])
