"""Time per step beyond the graph runs, guidance on, one thread.

The network is almost free, and its bare cost, measured in the same turns, is subtracted.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from benchmarks.loop_overhead import diffusers_ort, k_diffusion_ort, ours
from benchmarks.loop_overhead.case import CLASSES, STEPS, Case, Loop
from benchmarks.report import Report, number
from benchmarks.timing import NotInstalledError, alternate, one_torch_thread, summarize

COMPETITORS = (ours, diffusers_ort, k_diffusion_ort)
# float32 trajectories with sigmas in float32 there and float64 here
TOLERANCE = 1e-3


def run(quick: bool = False) -> Report:
    report = Report(
        "loop_overhead",
        f"Loop overhead: microseconds per step beyond the graph runs ({STEPS} steps, guidance on)",
        ["sampler", "latents", "bare graph", *(module.NAME for module in COMPETITORS), "ratio"],
    )
    rounds = 7 if quick else 41
    missing: dict[str, str] = {}
    with one_torch_thread():
        for sampler in CLASSES:
            for images in (1, 2):
                _measure(report, Case(sampler, images), rounds, missing)
    setups: dict[str, list[float]] = {}
    for cell in report.data.values():
        for name, times in cell["setup_ms"].items():
            setups.setdefault(name, []).append(times["median"])
    report.notes += [
        "The ratio is diffusers' overhead by ours. One thread for the graph and for torch.",
        "Set-up before the loop (schedule, tracing, start noise) is not in the table; per call: "
        + ", ".join(f"{name} {number(min(v))}-{number(max(v))} ms" for name, v in setups.items()),
        *(f"{name}: {reason}" for name, reason in missing.items()),
    ]
    return report


def _timed(loop: Loop, setup_seconds: list[float]) -> Callable[[], float]:
    """Sets up and runs; returns the seconds of the loop alone."""

    def run() -> float:
        start = time.perf_counter()
        state = loop.setup()
        middle = time.perf_counter()
        loop.loop(state)
        setup_seconds.append(middle - start)
        return time.perf_counter() - middle

    return run


def _measure(report: Report, case: Case, rounds: int, missing: dict[str, str]) -> None:
    loops: dict[str, Loop] = {}
    reasons: dict[str, str] = {}
    for module in COMPETITORS:
        try:
            loops[module.NAME] = module.make(case)
        except NotInstalledError as error:
            reasons[module.NAME] = str(error)
            missing.setdefault(module.NAME, str(error))
    results = {name: loop.loop(loop.setup()) for name, loop in loops.items()}
    expected = results[ours.NAME]
    for name, result in results.items():
        error = np.abs(result - expected).max() / np.abs(expected).max()
        if not error < TOLERANCE:
            raise AssertionError(f"{case}: {name} differs from ours by {error:.2e} relative")

    setups: dict[str, list[float]] = {name: [] for name in loops}
    runs = {name: _timed(loop, setups[name]) for name, loop in loops.items()}
    times = alternate({"bare": ours.make_bare(case), **runs}, rounds)
    bare = times.pop("bare")
    per_step = 1e3 / case.steps  # milliseconds of a run to microseconds of a step
    overhead = {name: t.scaled(per_step, bare.median) for name, t in times.items()}
    cells = []
    for module in COMPETITORS:
        found = overhead.get(module.NAME)
        if found is None:
            reason = reasons[module.NAME]
            cells.append("not installed" if "not installed" in reason else "n/a")
        else:
            cells.append(f"{number(found.median)} ({number(found.p10)}-{number(found.p90)})")
    theirs = overhead.get(diffusers_ort.NAME)
    ratio = f"{number(theirs.median / overhead[ours.NAME].median)}x" if theirs else "n/a"
    shape = str(list(case.shape)).replace(" ", "")
    report.add(case.sampler, shape, number(bare.scaled(per_step).median), *cells, ratio)
    report.data[f"{case.sampler}-{case.images}"] = {
        "steps": case.steps,
        "bare_us_per_step": bare.scaled(per_step).to_dict(),
        "overhead_us_per_step": {name: t.to_dict() for name, t in overhead.items()},
        "setup_ms": {name: summarize(seconds).to_dict() for name, seconds in setups.items()},
    }
