"""One pipeline in a process of its own: when it is ready, when its first picture is, then more.

python -m benchmarks.text_to_image_sd15.alone COMPETITOR DIRECTORY THREADS STEPS RUNS RESULT.npy
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np

from benchmarks.text_to_image_sd15.case import Case
from benchmarks.timing import NotInstalledError


def main(competitor: str, directory: str, threads: str, steps: str, runs: str, result: str) -> None:
    warnings.simplefilter("ignore")
    module = importlib.import_module(competitor)
    try:
        picture = module.load(Case(Path(directory), int(threads), int(steps)))
    except NotInstalledError as error:
        print(json.dumps({"missing": str(error)}))
        return
    ready = time.monotonic()  # the clock of the process that has started this one
    np.save(result, picture())
    first = time.monotonic()
    seconds = []
    for _ in range(int(runs)):
        start = time.perf_counter()
        picture()
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"ready": ready, "first": first, "seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
