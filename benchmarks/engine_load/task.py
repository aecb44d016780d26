"""Text to image ready in a fresh process, the engine in the cache; its first picture and memory."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.engine_load import (
    onnxruntime_fp32,
    openvino_bf16,
    openvino_cached_bf16,
    ours_bf16,
)
from benchmarks.engine_load.case import STEPS
from benchmarks.report import Report, number
from benchmarks.sd15 import ours_bf16 as engine
from benchmarks.sd15.case import find_model
from benchmarks.sd15.child import ask
from benchmarks.sd15.turns import relative_error
from textopia_fast import _core

COMPETITORS = (ours_bf16, onnxruntime_fp32, openvino_bf16, openvino_cached_bf16)
EXACT = onnxruntime_fp32
# of float32, as relative L2 error of the picture
ALLOWED_ERROR = 0.1


def run(quick: bool = False) -> Report:
    directory, threads = find_model(), _core.usable_cpus()
    engine.prepare(directory)
    report = Report(
        "engine_load",
        f"Stable Diffusion 1.5, text to image ready in a fresh process: seconds, {threads} threads",
        [
            *("competitor", "open", "import and open", "ours faster"),
            *("first picture", "error", "peak GB", "own peak GB"),
        ],
    )
    found, pictures = _measure(directory, threads, rounds=1 if quick else 5)
    mine = _median(found[ours_bf16], "import", "open")
    for module in COMPETITORS:
        turns = found[module]
        if "missing" in turns[0]:
            report.add(module.NAME, *["n/a"] * 7)
            report.notes.append(f"{module.NAME}: {turns[0]['missing']}")
            continue
        # of deviations from mid-grey, which would hide them
        error = relative_error(pictures[module] - 0.5, pictures[EXACT] - 0.5)
        if not error < ALLOWED_ERROR:
            raise AssertionError(f"{module.NAME}: relative error {error:.2g}")
        ready = _median(turns, "import", "open")
        report.add(
            module.NAME,
            number(_median(turns, "open")),
            number(ready),
            f"{number(ready / mine)}x",
            number(turns[0]["picture"]),
            f"{error:.4f}",
            *(number(turns[0][key] / 1e9) for key in ("peak_bytes", "own_peak_bytes")),
        )
        report.data[module.NAME] = {"error": error, "runs": turns}
    report.notes += [
        "Text encoder, U-Net and VAE decoder; processes of their own, in turns, medians.",
        f"First picture and memory: 512x512, {STEPS} steps of DDIM with guidance, in the first "
        "round. Errors of the picture are relative L2, of onnxruntime.",
        "Peak with pages of files, which processes share; own peak, of load and picture, without.",
    ]
    return report


def _measure(
    directory: Path, threads: int, rounds: int
) -> tuple[dict[ModuleType, list[dict[str, Any]]], dict[ModuleType, np.ndarray]]:
    found: dict[ModuleType, list[dict[str, Any]]] = {module: [] for module in COMPETITORS}
    pictures: dict[ModuleType, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.npy"

        def measure(module: ModuleType, *more: Path) -> dict[str, Any]:
            given = (module.__name__, ",".join(module.PACKAGES), directory, threads, *more)
            return ask("benchmarks.engine_load.alone", *given)

        measure(openvino_cached_bf16)  # fills its cache
        for k in range(rounds):
            for module in COMPETITORS:
                turn = measure(module, *([path] if k == 0 else []))
                found[module].append(turn)
                if "picture" in turn:
                    pictures[module] = np.load(path)
    return found, pictures


def _median(turns: list[dict[str, Any]], *keys: str) -> float:
    return statistics.median(sum(turn[key] for key in keys) for turn in turns)
