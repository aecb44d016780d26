"""Runs benchmark tasks and keeps their results.

    python benchmarks/run.py loop_overhead          # keeps JSON and summary in results/
    python benchmarks/run.py loop_overhead --quick  # fewer rounds, keeps nothing
    python benchmarks/run.py combine --json out.json  # JSON there instead
    python benchmarks/run.py unet_step --model DIRECTORY  # made by export_sd15.py or export_sdxl.py
    python benchmarks/run.py true_size --model DIRECTORY --model-xl DIRECTORY  # all in plan.py

A task is a folder with task.py; of its other files each is one competitor, or what all of them are
given (case.py). Competitors that several tasks on Stable Diffusion share lie in sd15/.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
import traceback
import warnings
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import report as reports  # noqa: E402 - needs the path above
from benchmarks import timing  # noqa: E402
from benchmarks.plan import PLAN  # noqa: E402
from benchmarks.sd15.case import MODEL  # noqa: E402
from benchmarks.text_to_image_sd15.case import STEPS  # noqa: E402

TASKS = sorted(path.parent.name for path in Path(__file__).parent.glob("*/task.py"))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=[*TASKS, "all", "true_size"])
    parser.add_argument("--quick", action="store_true", help="fewer rounds; keeps nothing")
    parser.add_argument("--json", type=Path, help="where to write the JSON of a task")
    parser.add_argument("--model", help="directory of the tasks that need one of true size")
    parser.add_argument("--model-xl", help="the same of Stable Diffusion XL, for true_size")
    parser.add_argument("--steps", type=int, help="of text_to_image_sd15, instead of 20")
    given = parser.parse_args(arguments)
    if given.json and given.task in ("all", "true_size"):
        parser.error("--json: of one task")
    if given.steps:
        os.environ[STEPS] = str(given.steps)
    warnings.simplefilter("ignore")  # competitors' deprecations would tear the table apart
    if given.task == "true_size":
        run_plan(given)
        return
    if given.model:
        os.environ[MODEL] = given.model
    for task in TASKS if given.task == "all" else [given.task]:
        run_task(task, given)


def run_plan(given: argparse.Namespace) -> None:
    """All of PLAN, each task with its model; those whose model is not given are left out."""
    failed = []
    items = [item for item in PLAN if getattr(given, item.model)]
    print(f"{len(items)} tasks, about {sum(item.minutes for item in items):.0f} minutes")
    for item in items:
        os.environ[MODEL] = getattr(given, item.model)
        print(f"\n{item.task}, {os.environ[MODEL]}: about {item.minutes} minutes", flush=True)
        start = time.monotonic()
        try:
            run_task(item.task, given)
        except Exception:  # the others are worth their minutes all the same
            traceback.print_exc()
            failed.append(item.task)
        print(f"{item.task}: {(time.monotonic() - start) / 60:.1f} minutes", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def run_task(task: str, given: argparse.Namespace) -> None:
    stamp = timing.machine()
    try:
        report = importlib.import_module(f"benchmarks.{task}.task").run(quick=given.quick)
    except timing.NotInstalledError as error:
        print(f"{task}: {error}")
        return
    report.machine = stamp
    needs_model = any(task == item.task for item in PLAN)
    options = " --model DIRECTORY" * needs_model + " --quick" * given.quick
    report.command = f"python benchmarks/run.py {task}{options}"
    reports.show(report)
    if given.json:
        reports.write(report, given.json)
    elif not given.quick:
        path = reports.RESULTS / f"{report.task}-{timing.slug(stamp)}.json"
        reports.write(report, path)
        reports.write_summary()


if __name__ == "__main__":
    main()
