"""One process with an engine: says when it is warm, waits for a line, then steps until killed.

python -m benchmarks.processes.worker DIRECTORY THREADS

Prints one JSON per line: {"checksum"} of the warm-up's result, then {"time"} after each step, on
the clock that all processes of the machine share.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path

from benchmarks.unet_step.case import Case
from benchmarks.unet_step.ours_bf16 import make


def main(directory: str, threads: str) -> None:
    step = make(Case(Path(directory), int(threads)))
    _say(checksum=hashlib.sha256(step().tobytes()).hexdigest())
    sys.stdin.readline()
    while True:
        step()
        _say(time=time.monotonic())


def _say(**values: object) -> None:
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
