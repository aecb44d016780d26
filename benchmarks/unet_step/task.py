"""One denoising step of Stable Diffusion 1.5 at its true size, with guidance."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Report, number
from benchmarks.timing import summarize
from benchmarks.unet_step import onnxruntime_fp32, openvino_bf16, ours_bf16, torch_bf16
from benchmarks.unet_step.case import Case, find_model
from textopia_fast import _core

COMPETITORS = (ours_bf16, onnxruntime_fp32, torch_bf16, openvino_bf16)
EXACT = onnxruntime_fp32
ROOT = Path(__file__).parent.parent.parent
# of float32, as relative L2 error: bfloat16 activations and weights
ALLOWED_ERROR = 0.05


def run(quick: bool = False) -> Report:
    case = Case(find_model(), _core.usable_cpus())
    ours_bf16.prepare(case)
    report = Report(
        "unet_step",
        f"U-Net step of Stable Diffusion 1.5, 512x512, batch 2, {case.threads} threads, "
        f"{_core.active_matrix_unit()}",
        ["competitor", "seconds", "ours faster", "CPU s", "error", "ready, s", "peak GB", "own GB"],
    )
    found, results = _measure(case, rounds=1 if quick else 3, steps=1 if quick else 3)
    mine = summarize(_join(found[ours_bf16], "seconds"))
    exact = results[EXACT]
    for module in COMPETITORS:
        runs = found[module]
        if "missing" in runs[0]:
            report.add(module.NAME, *["n/a"] * 7)
            report.notes.append(f"{module.NAME}: {runs[0]['missing']}")
            continue
        times = summarize(_join(runs, "seconds"))
        error = float(np.linalg.norm(results[module] - exact) / np.linalg.norm(exact))
        if not error < ALLOWED_ERROR:
            raise AssertionError(f"{module.NAME}: relative error {error:.2g}")
        peak, own = (
            max(run[key] or 0 for run in runs) / 1e9 for key in ("peak_bytes", "own_bytes")
        )
        ready = min(run["ready"] for run in runs)
        ratio = f"{number(times.median / mine.median)}x"
        seconds = [number(value / 1e3) for value in (times.median, times.p10, times.p90)]
        report.add(
            module.NAME,
            f"{seconds[0]} ({seconds[1]}-{seconds[2]})",
            ratio,
            number(summarize(_join(runs, "cpu_seconds")).median / 1e3),
            f"{error:.4f}",
            *map(number, (ready, peak, own)),
        )
        report.data[module.NAME] = {"step_ms": times.to_dict(), "error": error, "runs": runs}
    report.notes += [
        "Processes of their own, in turns; random weights. Errors are relative L2, of onnxruntime.",
        "CPU: of all threads, waiting in a loop included. Ready: model opened, engine warm.",
        "Own memory: without pages of files, which processes share.",
        "Ours is the body of the loop; prompt and timestep graphs run once per call, not per step.",
    ]
    return report


def _measure(
    case: Case, rounds: int, steps: int
) -> tuple[dict[Any, list[dict[str, Any]]], dict[Any, np.ndarray]]:
    found: dict[Any, list[dict[str, Any]]] = {module: [] for module in COMPETITORS}
    results: dict[Any, np.ndarray] = {}
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.npy"
        for _ in range(rounds):
            for module in COMPETITORS:
                name = module.__name__.rpartition(".")[2]
                arguments = (name, case.directory, case.threads, steps, path)
                command = [sys.executable, "-m", "benchmarks.unet_step.alone"]
                done = subprocess.run(
                    [*command, *map(str, arguments)],
                    env=environment,
                    cwd=ROOT,
                    check=True,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                found[module].append(json.loads(done.stdout.splitlines()[-1]))
                if "missing" not in found[module][-1]:
                    results[module] = np.load(path)
    return found, results


def _join(runs: list[dict[str, Any]], key: str) -> list[float]:
    return [value for run in runs for value in run[key]]
