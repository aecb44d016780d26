"""One competitor in a process of its own: seconds to be ready and per run, peak memory.

python -m benchmarks.sd15.alone TASK COMPETITOR DIRECTORY THREADS RUNS RESULT.npy
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np

from benchmarks.sd15.memory import go_first, own_bytes, peak_bytes
from benchmarks.timing import NotInstalledError


def main(task: str, competitor: str, directory: str, threads: str, runs: str, result: str) -> None:
    warnings.simplefilter("ignore")
    go_first()
    module = importlib.import_module(competitor)
    case = importlib.import_module(f"benchmarks.{task}.case").Case(Path(directory), int(threads))
    start = time.perf_counter()
    try:
        run = module.make(case)
    except NotInstalledError as error:
        print(json.dumps({"missing": str(error)}))
        return
    ready = time.perf_counter() - start
    np.save(result, run())  # warm-up
    seconds, cpu_seconds = [], []
    for _ in range(int(runs)):
        start, cpu_start = time.perf_counter(), time.process_time()
        run()
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    found = {"ready": ready, "seconds": seconds, "cpu_seconds": cpu_seconds}
    print(json.dumps({**found, "peak_bytes": peak_bytes(), "own_bytes": own_bytes()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
