"""Whole sampling loops: every sampler's own cost, and small networks end to end; one thread."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import textopia_fast as tx
from benchmarks.report import Report, number
from benchmarks.sampler_loop import (
    diffusers_torch,
    k_diffusion_torch,
    langevin,
    networks,
    ours,
)
from benchmarks.sampler_loop.case import STEPS, Case, Loop
from benchmarks.timing import NotInstalledError, alternate, one_torch_thread

COMPETITORS = (ours, diffusers_torch, k_diffusion_torch)
# float32 trajectories with sigmas in float32 there and float64 here
TOLERANCE = 1e-3
# Long enough that what the turn of another leaves in the caches does not count.
TURN_SECONDS = 0.01
COLUMNS = (ours.NAME, "diffusers", "k-diffusion", "torch loop")
SMALL = ("euler", "ddim", "dpmpp_2m", "euler_ancestral")
CHAINS = (1, 64, 1024)


def run(quick: bool = False) -> Report:
    report = Report(
        "sampler_loop",
        f"Sampling loops: milliseconds of {STEPS} steps at [1,4,64,64], or of "
        f"{langevin.UPDATES} Langevin updates; in brackets without the network",
        [
            "network, sampler",
            ours.NAME,
            "diffusers",
            "k-diffusion",
            "torch loop",
            "outside",
            "end to end",
        ],
    )
    rounds = 5 if quick else 31
    with one_torch_thread():
        trivial = networks.trivial()
        for name, info in tx.samplers.SAMPLERS.items():
            if getattr(info, "steps", "fixed") == "fixed":
                _loops(report, "trivial", Case(name, trivial), rounds)
        small = networks.convolutions()
        for name in SMALL:
            _loops(report, "convolutions", Case(name, small), rounds)
        plane = networks.score_of_plane()
        for name in langevin.programs():
            for chains in CHAINS:
                loops = {
                    who: make(name, plane, chains) for who, make in langevin.COMPETITORS.items()
                }
                _measure(report, f"2-D score, {name}, {chains} chains", loops, rounds)
    report.notes += [
        "outside: the nearest competitor's time without the network by ours; end to end: the same "
        "of the whole loops. One thread everywhere.",
        "Ours runs the network in ONNX Runtime, the others in torch, each at its best; what the "
        "bare network runs cost in each is subtracted for the numbers in brackets.",
        "Every turn repeats a loop for 10 ms and counts the mean.",
        "Samplers that no competitor has are left out. k-diffusion's dpmpp_sde draws both of a "
        "step's numbers afresh where its own Brownian tree, and ours, share one path.",
    ]
    return report


def _loops(report: Report, network: str, case: Case, rounds: int) -> None:
    loops: dict[str, Loop] = {}
    for module in COMPETITORS:
        try:
            loops[module.NAME] = module.make(case)
        except NotInstalledError:
            continue
    if len(loops) < 2:
        return
    expected = loops[ours.NAME].run()
    differences = {
        name: float(np.abs(loop.run() - expected).max() / np.abs(expected).max())
        for name, loop in loops.items()
    }
    same = {name: loops[name] for name, found in differences.items() if found < TOLERANCE}
    label = f"{network}, {case.sampler}"
    _measure(report, label, loops, rounds)
    different = {name: f"{differences[name]:.1e}" for name in loops.keys() - same.keys()}
    report.data[label]["relative_difference"] = differences
    if different:
        report.notes.append(f"{label}: results differ from ours by {different}.")


def _measure(report: Report, label: str, loops: dict[str, Loop], rounds: int) -> None:
    turns = {name: _often(loop.run) for name, loop in loops.items()}
    turns |= {f"{name} bare": _often(loop.bare) for name, loop in loops.items()}
    times = alternate(turns, rounds)
    outside = {name: max(times[name].median - times[f"{name} bare"].median, 1e-6) for name in loops}
    cells = {name: f"{number(times[name].median)} ({number(outside[name])})" for name in loops}
    others = [name for name in loops if name != ours.NAME]
    nearest = min(outside[name] for name in others) / outside[ours.NAME]
    whole = min(times[name].median for name in others) / times[ours.NAME].median
    columns = (ours.NAME, "diffusers", "k-diffusion", "torch loop")
    report.add(
        label,
        *(cells.get(name, "-") for name in columns),
        f"{number(nearest)}x",
        f"{number(whole)}x",
    )
    report.data[label] = {
        "milliseconds": {name: found.to_dict() for name, found in times.items()},
        "outside_ms": outside,
    }


def _often(run: Callable[[], Any]) -> Callable[[], float]:
    """`run` as often as fits into a turn; returns the seconds of one, or the mean of its own."""

    def once() -> float:
        start = time.perf_counter()
        measured = run()
        return measured if isinstance(measured, float) else time.perf_counter() - start

    count = max(1, round(TURN_SECONDS / max(once(), once())))
    return lambda: sum(once() for _ in range(count)) / count
