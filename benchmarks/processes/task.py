"""U-Net steps per second of several processes with one engine each, and the memory they share."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import Report, number
from benchmarks.sd15 import ours_bf16 as engine
from benchmarks.sd15.case import find_model
from benchmarks.sd15.child import command, surroundings
from benchmarks.sd15.memory import shares
from textopia_fast import _core

PROCESSES = 4
# Gigabytes of files in all processes beyond those of one: a second copy of the weights has 1.7
ALLOWED_FILES = 0.2


@dataclass(frozen=True)
class Found:
    """steps_per_second: of all processes. memory: one dictionary of `shares` per process."""

    steps_per_second: float
    memory: list[dict[str, int]]
    checksums: set[str]

    def total(self, *keys: str) -> float:
        return sum(process.get(key, 0) for process in self.memory for key in keys) / 1e9


def run(quick: bool = False) -> Report:
    directory, threads = find_model(), _core.usable_cpus()
    engine.prepare(directory)
    report = Report(
        "processes",
        f"U-Net step of Stable Diffusion 1.5, 512x512, batch 2: processes with one engine each on "
        f"{threads} CPUs, {_core.active_matrix_unit()}",
        [
            *("processes", "threads of each", "steps/s in all", "of one process"),
            *("memory in all, GB", "own of each, GB", "of it files, GB"),
        ],
    )
    setups = [(1, threads), (PROCESSES, 1)]
    found: dict[tuple[int, int], list[Found]] = {setup: [] for setup in setups}
    for _ in range(1 if quick else 2):
        for setup in setups:
            found[setup].append(_measure(directory, *setup, steps=1 if quick else 3))
    if len({one for turns in found.values() for turn in turns for one in turn.checksums}) != 1:
        raise AssertionError("the processes do not agree on the result")
    one, several = (found[setup][-1].total("Pss_File") for setup in setups)
    if several > one + ALLOWED_FILES:
        raise AssertionError(f"weights are not shared: {several:.2f} GB of files, {one:.2f} in one")
    single = _rate(found[setups[0]])
    for setup, turns in found.items():
        last, rate = turns[-1], _rate(turns)
        own = last.total("Private_Clean", "Private_Dirty") / setup[0]
        memory = (last.total("Pss"), own, last.total("Pss_File"))
        report.add(*setup, number(rate), f"{100 * rate / single:.0f} %", *map(number, memory))
        report.data[f"{setup[0]} x {setup[1]} threads"] = {
            "steps_per_second": [turn.steps_per_second for turn in turns],
            "memory": last.memory,
        }
    report.notes += [
        "Every process steps without pause; counted until the slowest has made its steps.",
        "Memory in all, and of it files (weights, libraries): a page that n processes share counts "
        "1/n in each (PSS). Own: pages that no other process has (USS).",
        "All processes give the same result to the bit.",
    ]
    return report


def _rate(turns: list[Found]) -> float:
    return statistics.median(turn.steps_per_second for turn in turns)


def _measure(directory: Path, processes: int, threads: int, steps: int) -> Found:
    with _workers(directory, processes, threads) as workers:
        checksums = {json.loads(worker.stdout.readline())["checksum"] for worker in workers}
        start = time.monotonic()
        for worker in workers:
            worker.stdin.write("\n")
            worker.stdin.flush()
        ends: list[list[float]] = [[] for _ in workers]
        readers = [
            threading.Thread(target=_read, args=(worker, times), daemon=True)
            for worker, times in zip(workers, ends, strict=True)
        ]
        for reader in readers:
            reader.start()
        while min(map(len, ends)) < steps:
            if any(worker.poll() is not None for worker in workers):
                raise RuntimeError("a process ended by itself")
            time.sleep(0.01)
        memory = [shares(worker.pid) for worker in workers]
        until = max(times[steps - 1] for times in ends)
    counted = [[end for end in times if end <= until] for times in ends]
    return Found(sum(len(times) / (times[-1] - start) for times in counted), memory, checksums)


@contextlib.contextmanager
def _workers(directory: Path, processes: int, threads: int) -> Iterator[list[Any]]:
    workers = [
        subprocess.Popen(
            command("benchmarks.processes.worker", directory, threads),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            **surroundings(),
        )
        for _ in range(processes)
    ]
    try:
        yield workers
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
            worker.stdin.close()


def _read(worker: Any, times: list[float]) -> None:
    for line in worker.stdout:
        times.append(json.loads(line)["time"])
