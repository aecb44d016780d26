"""The first run at a new picture size against later ones, of our compiled networks."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from benchmarks.new_size import unet, vae_decoder
from benchmarks.new_size.sizes import NEW
from benchmarks.report import Report, number
from benchmarks.sd15 import ours_bf16 as engine
from benchmarks.sd15.case import find_model
from benchmarks.sd15.child import ask
from textopia_fast import _core

NETWORKS = (unet, vae_decoder)


def run(quick: bool = False) -> Report:
    directory, threads = find_model(), _core.usable_cpus()
    folder = engine.prepare(directory).path
    before = _state(folder)
    report = Report(
        "new_size",
        f"Stable Diffusion 1.5 at new sizes after 512x512: seconds, {threads} threads, "
        f"{_core.active_matrix_unit()}",
        ["network", "pixels", "first", "steady", "first / steady"],
    )
    rounds, runs = (1, 1) if quick else (2, 2)
    found: dict[Any, list[dict[str, Any]]] = {module: [] for module in NETWORKS}
    for _ in range(rounds):
        for module in NETWORKS:
            name = module.__name__.rpartition(".")[2]
            turn = ask("benchmarks.new_size.alone", name, directory, threads, runs)
            if not turn["same"]:
                raise AssertionError(f"{module.NAME}: differs from one opened for the new size")
            found[module].append(turn)
    if _state(folder) != before:
        raise AssertionError("a new size has changed the engine")
    for module, turns in found.items():
        old = statistics.median(value for turn in turns for value in turn["old"])
        report.add(module.NAME, "512x512", "", number(old), "")
        ratios = []
        for k, (height, width) in enumerate(NEW):
            new = [turn["new"][k] for turn in turns]
            first = statistics.median(one["first"] for one in new)
            steady = statistics.median(value for one in new for value in one["steady"])
            # of each process by itself: a busy machine slows both alike
            now = [one["first"] / statistics.median(one["steady"]) for one in new]
            ratios += now
            pixels = f"{8 * height}x{8 * width}"
            ratio = f"{number(statistics.median(now))}x"
            report.add(module.NAME, pixels, number(first), number(steady), ratio)
        ratio = statistics.median(ratios)
        report.add(module.NAME, "all new ones", "", "", f"{number(ratio)}x")
        report.data[module.NAME] = {"first_to_steady": ratio, "runs": turns}
    report.notes += [
        "Medians of processes of their own, in turns; in each of them a size is new once.",
        "The graphs are compiled for free sizes: the engine stays as it was. Results at the last "
        "size are, to the bit, those of a network that has never seen another.",
    ]
    return report


def _state(folder: Path) -> set[tuple[Path, int, int]]:
    """Files of an engine with their sizes and times."""
    files = [(path, path.stat()) for path in folder.rglob("*")]
    return {(path, stat.st_size, stat.st_mtime_ns) for path, stat in files}
