"""Milliseconds for a picture, warm; to load; and for the first picture of a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np

from benchmarks.report import Report, number
from benchmarks.text_to_image import diffusers_ort, ours
from benchmarks.text_to_image.case import GUIDANCE, SEED, STEPS, Case, find_model
from benchmarks.timing import NotInstalledError, Times, alternate

COMPETITORS = (ours, diffusers_ort)
# the same networks; sigmas in float64 here and float32 there
TOLERANCE = 2e-3
# what, images, images_per_run
WARM = (
    ("1 picture, warm", 1, "auto"),
    ("4 pictures, warm", 4, "auto"),
    ("4 pictures, warm, images_per_run=1", 4, 1),
)


def run(quick: bool = False) -> Report:
    directory, model = find_model()
    report = Report(
        "text_to_image",
        f"Text to image: milliseconds, model {model}, {STEPS} steps, guidance {GUIDANCE}",
        ["what", "threads", *(module.NAME for module in COMPETITORS), "ratio"],
    )
    rounds = 5 if quick else 21
    for threads in (1, None):
        shown = threads or "all"
        for what, images, images_per_run in WARM:
            case = Case(directory, model, images, threads, images_per_run)
            _add(report, what, shown, {m: _checked(m, case) for m in COMPETITORS}, rounds)
    case = Case(directory, model)
    loads = {m: _loader(m, case) for m in COMPETITORS}
    _add(report, "load the model", "all", loads, rounds)
    colds = {m: _cold(m, case) for m in COMPETITORS}
    _add(report, "import, load and first picture in a fresh process", "all", colds, rounds // 3)
    report.notes += [
        "Pictures of both are compared before timing (2e-3 absolute).",
        "Ours shares runs of the network between the pictures of a batch where a comparison at the "
        "first request shows that no bit changes; images_per_run=1 never shares.",
    ]
    return report


def _checked(module, case: Case) -> Callable[[], np.ndarray] | str:
    try:
        make = module.make(case)
    except NotInstalledError as error:
        return str(error)
    if module is not ours:
        error = np.abs(make() - ours.make(case)()).max()
        if not error < TOLERANCE:
            raise AssertionError(f"{case}: {module.NAME} differs from ours by {error:.2e}")
    return make


def _loader(module, case: Case) -> Callable[[], object] | str:
    try:
        module.load(case)
    except NotInstalledError as error:
        return str(error)
    return lambda: module.load(case) and None


def _cold(module, case: Case) -> Callable[[], object] | str:
    try:
        module.load(case)
    except NotInstalledError as error:
        return str(error)
    command = [sys.executable, "-c", module.COLD, str(case.directory), str(SEED)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return lambda: subprocess.run(command, env=environment, check=True, capture_output=True)


def _add(report: Report, what: str, threads: object, runs: dict, rounds: int) -> None:
    able = {m.NAME: run for m, run in runs.items() if not isinstance(run, str)}
    times = alternate(able, max(rounds, 3), warm_up=1)
    cells = [_cell(times.get(module.NAME), runs[module]) for module in COMPETITORS]
    theirs, mine = times.get(diffusers_ort.NAME), times[ours.NAME]
    ratio = f"{number(theirs.median / mine.median)}x" if theirs else "n/a"
    report.add(what, threads, *cells, ratio)
    report.data[f"{what} ({threads} threads)"] = {n: t.to_dict() for n, t in times.items()}


def _cell(times: Times | None, run: object) -> str:
    if times is None:
        return str(run)
    return f"{number(times.median)} ({number(times.p10)}-{number(times.p90)})"
