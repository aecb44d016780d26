"""One competitor in a process of its own: import, open, and where asked for a first picture.

python -m benchmarks.engine_load.alone COMPETITOR PACKAGES DIRECTORY THREADS [RESULT.npy]
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import warnings
from pathlib import Path


def main(
    competitor: str, packages: str, directory: str, threads: str, result: str | None = None
) -> None:
    warnings.simplefilter("ignore")
    start = time.perf_counter()
    try:
        for package in packages.split(","):
            importlib.import_module(package)
    except ImportError as error:
        print(json.dumps({"missing": str(error)}))
        return
    found = {"import": time.perf_counter() - start}

    import numpy as np

    from benchmarks.engine_load.case import Case
    from benchmarks.sd15.memory import own_bytes

    module = importlib.import_module(competitor)
    case = Case(Path(directory), int(threads))
    case.ids()  # the peers have no tokenizer of their own: not timed
    start = time.perf_counter()
    picture = module.load(case)
    found["open"] = time.perf_counter() - start
    found["open_bytes"] = own_bytes() or 0
    if result:
        start = time.perf_counter()
        np.save(result, picture())
        found["picture"] = time.perf_counter() - start
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
