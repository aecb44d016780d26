"""Seconds for a picture, warm and from a cold start, and the memory it takes."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.report import Report, number
from benchmarks.sd15 import ours_bf16 as engine
from benchmarks.sd15.case import find_model
from benchmarks.sd15.child import ask
from benchmarks.sd15.turns import relative_error
from benchmarks.text_to_image_sd15 import openvino_genai, ours_bf16
from benchmarks.text_to_image_sd15.case import GUIDANCE, PIXELS, find_steps
from textopia_fast import _core

COMPETITORS = (ours_bf16, openvino_genai)
# of the pictures' deviations from mid-grey, as relative L2: both round to bfloat16, and a random
# network with guidance makes more of that from step to step
ALLOWED_DIFFERENCE = 0.3


def run(quick: bool = False) -> Report:
    directory, threads, steps = find_model(), _core.usable_cpus(), find_steps()
    engine.prepare(directory)
    report = Report(
        "text_to_image_sd15",
        f"Stable Diffusion 1.5, {PIXELS}x{PIXELS}, {steps} steps, guidance {GUIDANCE}: seconds, "
        f"{threads} threads, {_core.active_matrix_unit()}",
        [
            *("competitor", "picture", "ours faster", "process to ready", "to first picture"),
            *("ours faster", "difference", "peak GB", "own peak GB"),
        ],
    )
    found, pictures = _measure(directory, threads, steps, rounds=1 if quick else 2)
    mine = found[ours_bf16]
    for module, turns in found.items():
        if "missing" in turns[-1]:
            report.add(module.NAME, *["n/a"] * 8)
            report.notes.append(f"{module.NAME}: {turns[-1]['missing']}")
            continue
        difference = relative_error(pictures[module] - 0.5, pictures[ours_bf16] - 0.5)
        if not difference < ALLOWED_DIFFERENCE:
            raise AssertionError(f"{module.NAME}: another picture, by {difference:.2g}")
        warm, first = _warm(turns), _after_start(turns, "first")
        report.add(
            module.NAME,
            number(warm),
            f"{number(warm / _warm(mine))}x",
            number(_after_start(turns, "ready")),
            number(first),
            f"{number(first / _after_start(mine, 'first'))}x",
            f"{difference:.3f}",
            *(number(max(t[key] for t in turns) / 1e9) for key in ("peak_bytes", "own_peak_bytes")),
        )
        report.data[module.NAME] = {"difference": difference, "runs": turns}
    report.notes += [
        "Whole pipelines, prompt to pixels, the scheduler of the model on both sides; processes of "
        "their own, in turns, medians. Engine and OpenVINO's cache are there already.",
        "Difference of the pictures from ours: relative L2 of what deviates from mid-grey.",
        "Peak with pages of files, which processes share; own without, both of a whole process.",
    ]
    return report


def _measure(
    directory: Path, threads: int, steps: int, rounds: int
) -> tuple[dict[ModuleType, list[dict[str, Any]]], dict[ModuleType, np.ndarray]]:
    found: dict[ModuleType, list[dict[str, Any]]] = {module: [] for module in COMPETITORS}
    pictures: dict[ModuleType, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "picture.npy"

        def measure(module: ModuleType, steps: int, runs: int) -> dict[str, Any]:
            given = (module.__name__, directory, threads, steps, runs, path)
            return ask("benchmarks.text_to_image_sd15.alone", *given)

        for module in COMPETITORS:
            measure(module, steps=1, runs=0)  # fills caches
        for _ in range(rounds):
            for module in COMPETITORS:
                turn = measure(module, steps, runs=1)
                found[module].append(turn)
                if "missing" not in turn:
                    pictures[module] = np.load(path)
    return found, pictures


def _warm(turns: list[dict[str, Any]]) -> float:
    return statistics.median(value for turn in turns for value in turn["seconds"])


def _after_start(turns: list[dict[str, Any]], key: str) -> float:
    return statistics.median(turn[key] - turn["start"] for turn in turns)
