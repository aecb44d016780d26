"""Runs a benchmark task and keeps its result.

    python benchmarks/run.py loop_overhead          # keeps JSON and summary in results/
    python benchmarks/run.py loop_overhead --quick  # fewer rounds, keeps nothing
    python benchmarks/run.py combine --json out.json  # JSON there instead
    python benchmarks/run.py unet_step --model DIRECTORY  # made by benchmarks/export_sd15.py; so do
                    # vae_decode, text_encoder, engine_load, new_size and processes

A task is a folder with task.py; of its other files each is one competitor, or what all of them are
given (case.py). Competitors that several tasks on Stable Diffusion share lie in sd15/.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import report as reports  # noqa: E402 - needs the path above
from benchmarks import timing  # noqa: E402

TASKS = sorted(path.parent.name for path in Path(__file__).parent.glob("*/task.py"))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", choices=[*TASKS, "all"])
    parser.add_argument("--quick", action="store_true", help="fewer rounds; keeps nothing")
    parser.add_argument("--json", type=Path, help="where to write the JSON")
    parser.add_argument("--model", help="directory of the tasks that need one of true size")
    given = parser.parse_args(arguments)
    if given.model:
        os.environ["TEXTOPIA_BENCHMARK_MODEL"] = given.model
    warnings.simplefilter("ignore")  # competitors' deprecations would tear the table apart
    for task in TASKS if given.task == "all" else [given.task]:
        stamp = timing.machine()
        try:
            report = importlib.import_module(f"benchmarks.{task}.task").run(quick=given.quick)
        except timing.NotInstalledError as error:
            print(f"{task}: {error}")
            continue
        report.machine = stamp
        report.command = f"python benchmarks/run.py {task}" + (" --quick" if given.quick else "")
        reports.show(report)
        if given.json:
            reports.write(report, given.json)
        elif not given.quick:
            path = reports.RESULTS / f"{task}-{timing.slug(stamp)}.json"
            reports.write(report, path)
            reports.write_summary()


if __name__ == "__main__":
    main()
