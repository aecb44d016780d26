"""Competitors over one network, each in a process of its own, in turns."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from subprocess import CalledProcessError
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.report import Report, number
from benchmarks.sd15 import onnxruntime_fp32, ours_bf16
from benchmarks.sd15.case import NetworkCase
from benchmarks.sd15.child import ask
from benchmarks.timing import summarize

COLUMNS = [
    "competitor",
    "seconds",
    "ours faster",
    "CPU s",
    "error",
    "ready, s",
    "peak GB",
    "own GB",
]
# of float32, as relative L2 error: bfloat16 activations and weights
ALLOWED_ERROR = 0.05
NOTES = (
    "Processes of their own, in turns; random weights. Errors are relative L2, of float32.",
    "CPU: of all threads, waiting in a loop included. Ready: imported, model opened, engine warm.",
    "Own memory: without pages of files, which processes share.",
)


def compare(
    task: str,
    title: str,
    case: NetworkCase,
    competitors: Sequence[ModuleType],
    *,
    rounds: int,
    runs: int,
) -> Report:
    """The table of a task; the first competitor is ours, errors are of float32: what the export
    has left, else ONNX Runtime's."""
    ours_bf16.prepare(case.directory)
    report = Report(task, title, COLUMNS)
    found, results = _measure(task, case, competitors, rounds, runs)
    mine = summarize(_join(found[competitors[0]], "seconds"))
    exact = case.stored_result
    if exact is None:
        exact = results[onnxruntime_fp32]
    for module in competitors:
        turns = found[module]
        missing = [turn["missing"] for turn in turns if "missing" in turn]
        if missing:
            report.add(module.NAME, *["n/a"] * 7)
            report.notes.append(f"{module.NAME}: {missing[0]}")
            continue
        times = summarize(_join(turns, "seconds"))
        error = relative_error(results[module], exact)
        if not error < ALLOWED_ERROR:
            raise AssertionError(f"{module.NAME}: relative error {error:.2g}")
        peak, own = (
            max(turn[key] or 0 for turn in turns) / 1e9 for key in ("peak_bytes", "own_bytes")
        )
        seconds = [number(value / 1e3) for value in (times.median, times.p10, times.p90)]
        report.add(
            module.NAME,
            f"{seconds[0]} ({seconds[1]}-{seconds[2]})",
            f"{number(times.median / mine.median)}x",
            number(summarize(_join(turns, "cpu_seconds")).median / 1e3),
            f"{error:.4f}",
            *map(number, (min(turn["ready"] for turn in turns), peak, own)),
        )
        report.data[module.NAME] = {"run_ms": times.to_dict(), "error": error, "runs": turns}
    report.notes += NOTES
    return report


def relative_error(result: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(result - exact) / np.linalg.norm(exact))


def _measure(
    task: str, case: NetworkCase, competitors: Sequence[ModuleType], rounds: int, runs: int
) -> tuple[dict[ModuleType, list[dict[str, Any]]], dict[ModuleType, np.ndarray]]:
    found: dict[ModuleType, list[dict[str, Any]]] = {module: [] for module in competitors}
    results: dict[ModuleType, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.npy"

        def measure(module: ModuleType, runs: int) -> dict[str, Any]:
            given = (task, module.__name__, case.directory, case.threads, runs, path)
            try:
                return ask("benchmarks.sd15.alone", *given)
            except CalledProcessError as error:
                if module is competitors[0]:
                    raise
                return {"missing": f"failed ({error})"}

        for module in competitors:
            if getattr(module, "FILLS_CACHE", False):
                measure(module, runs=0)
        for _ in range(rounds):
            for module in competitors:
                turn = measure(module, runs)
                found[module].append(turn)
                if "missing" not in turn:
                    results[module] = np.load(path)
    return found, results


def _join(turns: list[dict[str, Any]], key: str) -> list[float]:
    return [value for turn in turns for value in turn[key]]
