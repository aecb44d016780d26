"""Processes of their own: their time, and their memory as seen from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.sd15.memory import own_bytes, peak_bytes

ROOT = Path(__file__).parent.parent.parent
_SAMPLE_SECONDS = 0.02


@dataclass(frozen=True)
class Watched:
    """A process that has ended.

    Attributes:
        output: What it printed.
        start: `time.monotonic()` before it was started, the same clock in all processes.
        seconds: From there to its end.
        peak_bytes: The most memory it had, pages of mapped files included.
        own_peak_bytes: The most it had without them, seen every 20 ms.
    """

    output: str
    start: float
    seconds: float
    peak_bytes: int
    own_peak_bytes: int


def command(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", module, *map(str, arguments)]


def surroundings() -> dict[str, Any]:
    """Keyword arguments of a subprocess that finds the modules that this one finds."""
    path = os.pathsep.join([str(ROOT), *sys.path])
    return {"env": os.environ | {"PYTHONPATH": path}, "cwd": ROOT, "text": True}


def watch(arguments: list[str]) -> Watched:
    """Runs a program that prints little; raises CalledProcessError where it fails."""
    start = time.monotonic()
    peak = own = 0
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, **surroundings()) as process:
        while process.poll() is None:
            peak = max(peak, peak_bytes(process.pid) or 0)
            own = max(own, own_bytes(process.pid) or 0)
            time.sleep(_SAMPLE_SECONDS)
        seconds = time.monotonic() - start
        output = process.stdout.read()
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, arguments)
    return Watched(output, start, seconds, peak, own)


def ask(module: str, *arguments: object) -> dict[str, Any]:
    """What a module prints last, as JSON, run in a process of its own.

    With the numbers of `Watched` where the module does not say them itself.
    """
    done = watch(command(module, *arguments))
    numbers = {"peak_bytes": done.peak_bytes, "own_peak_bytes": done.own_peak_bytes}
    return {**numbers, "start": done.start, **json.loads(done.output.splitlines()[-1])}
