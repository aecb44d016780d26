"""The first run at a new picture size against later ones, of our compiled networks."""

from __future__ import annotations

import statistics

from benchmarks.new_size import unet, vae_decoder
from benchmarks.report import Report, number
from benchmarks.sd15 import ours_bf16 as engine
from benchmarks.sd15.case import find_model
from benchmarks.sd15.turns import ask
from textopia_fast import _core

NETWORKS = (unet, vae_decoder)


def run(quick: bool = False) -> Report:
    directory, threads = find_model(), _core.usable_cpus()
    engine.prepare(directory)
    report = Report(
        "new_size",
        "Stable Diffusion 1.5 at a new size, 512x512 and then 448x640: seconds, "
        f"{threads} threads, {_core.active_matrix_unit()}",
        ["network", "512x512, steady", "448x640, first", "448x640, steady", "first / steady"],
    )
    rounds, runs = (1, 1) if quick else (3, 2)
    found = {module: [] for module in NETWORKS}
    for _ in range(rounds):
        for module in NETWORKS:
            name = module.__name__.rpartition(".")[2]
            turn = ask("benchmarks.new_size.alone", name, directory, threads, runs)
            if not turn["same"]:
                raise AssertionError(f"{module.NAME}: differs from one opened for the new size")
            found[module].append(turn)
    for module, turns in found.items():
        old, steady = (
            statistics.median(value for turn in turns for value in turn[key])
            for key in ("old", "steady")
        )
        first = statistics.median(turn["first"] for turn in turns)
        # of each process by itself: a busy machine slows both alike
        ratio = statistics.median(
            turn["first"] / statistics.median(turn["steady"]) for turn in turns
        )
        report.add(module.NAME, *map(number, (old, first, steady)), f"{number(ratio)}x")
        report.data[module.NAME] = {"first_to_steady": ratio, "runs": turns}
    report.notes.append(
        "Medians of processes of their own, in turns. The results at the new size are those, to "
        "the bit, of a network that has never seen another."
    )
    return report
