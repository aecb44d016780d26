"""The engine against its peers on a GPU: the same random weights of true size, in turns.
Times are those of events of the GPU.

    python -m benchmarks.gpu.contest export sd15 --out build/gpu-check     writes what is measured
    python -m benchmarks.gpu.contest sd15 --out build/gpu-check            one task
    python -m benchmarks.gpu.contest all --rehearse --out FOLDER           tiny, without a GPU

Each task is a file of its own, contest-TASK.json, written anew after every peer and every round:
what ends a process loses nothing that was measured before. A peer that fails is written down with
its reason. A task that is complete is left alone, unless `--again`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from . import networks, peers, small
from .clock import Runner, milliseconds, summary
from .networks import Machine

ROUNDS = 7
WARM_UP = 3


@dataclass
class Contest:
    """A row of the table of targets.

    Attributes:
        label: What is measured.
        target_ms: That ours shall take at most, or None.
        ratio: That the best peer's time shall be of ours at least.
        peers: Makers by name, "ours" among them; the slowest to prepare comes last.
        floor_ms: What the arithmetic or the bytes need at least, where that was worked out.
    """

    label: str
    peers: dict[str, Callable[[], Runner]]
    target_ms: float | None = None
    ratio: float | None = None
    floor_ms: float | None = None
    notes: list[str] = field(default_factory=list)


NETWORKS = {
    # task: (export, kind, configuration, side of the latents, label, target, floor)
    "sd15": ("sd15", "unet", networks.SD15, 64, "SD 1.5 512x512 step, batch 2", 4.0, 1.6),
    "sdxl": ("sdxl", "unet", networks.XL, 128, "SDXL 1024x1024 step, batch 2", 26.0, 13.7),
    "vae512": ("sd15", "vae", networks.SD15, 64, "VAE decode 512", 6.0, 2.5),
    "vae1024": ("sd15", "vae", networks.SD15, 128, "VAE decode 1024", 25.0, 10.6),
    "turbo": ("turbo", "turbo", networks.TURBO, 64, "SD-Turbo 512, 1 step, end to end", 15.0, None),
}
EXPORTS = ("sd15", "sdxl", "turbo")


def contests(machine: Machine, out: Path) -> dict[str, Callable[[], Contest]]:
    """Every task by name; nothing is loaded before it is called."""
    made: dict[str, Callable[[], Contest]] = {
        name: partial(_network_contest, machine, out, name) for name in NETWORKS
    }
    for width in small.WIDTHS:
        made[f"attention{width}"] = partial(_attention_contest, machine, width)
    for side in small.SIDES:
        made[f"combine{side}"] = partial(_combine_contest, machine, side)
    made["loop"] = partial(_loop_contest, machine)
    return made


def _network_contest(machine: Machine, out: Path, name: str) -> Contest:
    folder, kind, config, side, label, target, floor = NETWORKS[name]
    if machine.is_rehearsal:
        side = 8
    task = peers.Task(name, kind, out / "models" / folder, config, side, machine)
    return Contest(
        label,
        {
            "ours": partial(peers.ours, task),
            "ONNX Runtime CUDA": partial(peers.plain_ort, task),
            "diffusers": partial(peers.eager, task),
            "torch.compile": partial(peers.compiled, task),
        },
        target,
        1.0,
        floor,
    )


def _attention_contest(machine: Machine, width: int) -> Contest:
    makers = {"ours": partial(small.our_attention, machine, width)}
    for backend in small.BACKENDS:
        makers[f"SDPA {backend}"] = partial(small.torch_attention, machine, width, backend)
    label = f"attention d={width}, {small.describe(machine, width)}"
    return Contest(label, makers, ratio=0.95 if width == 64 else 1.15)


def _combine_contest(machine: Machine, side: int) -> Contest:
    makers = {
        "ours": partial(small.our_combine, machine, side),
        "diffusers scheduler step": partial(small.scheduler_step, machine, side),
        "an empty launch": partial(small.empty_launch, machine),
    }
    notes = ["target also: within twice the time of an empty launch"]
    return Contest(f"combine, 4x{side}x{side}, batch 8", makers, ratio=10.0, notes=notes)


def _loop_contest(machine: Machine) -> Contest:
    notes = ["per step over a graph of one multiplication: all of it counts as overhead"]
    makers = {"ours": partial(small.bare_loop, machine)}
    return Contest("loop overhead per step outside the graph", makers, 0.020, notes=notes)


def run(name: str, contest: Contest, machine: Machine, out: Path) -> dict[str, Any]:
    """Prepares one peer after the other; after each, all that are there run in turns."""
    path = out / f"contest-{name}.json"
    record: dict[str, Any] = {
        "name": name,
        "label": contest.label,
        "target_ms": contest.target_ms,
        "ratio": contest.ratio,
        "floor_ms": contest.floor_ms,
        "notes": contest.notes,
        "is_rehearsal": machine.is_rehearsal,
        "peers": {},
        "complete": False,
    }

    def save() -> None:
        partial_path = path.with_suffix(".part")
        partial_path.write_text(json.dumps(record, indent=1) + "\n")
        partial_path.replace(path)

    runners: dict[str, Runner] = {}
    # The quick ones are measured before the slow one is prepared, and again beside it.
    for peer, make in contest.peers.items():
        record["peers"][peer] = {"error": "did not finish in its time"}
        save()
        start = time.perf_counter()
        try:
            runner = make()
            for _ in range(WARM_UP):
                milliseconds(runner, machine.is_rehearsal)
        except Exception as error:  # whatever it is, the others go on
            text = f"{type(error).__name__}: {str(error).strip()[:500]}"
            where = traceback.extract_tb(error.__traceback__)[-1]
            at = f"{Path(where.filename).name}:{where.lineno}"
            record["peers"][peer] = {"error": text, "at": at}
            save()
            continue
        runners[peer] = runner
        record["peers"][peer] = {"ready_s": time.perf_counter() - start}
        times: dict[str, list[float]] = {name: [] for name in runners}
        for _ in range(ROUNDS):
            for name_of, one in list(runners.items()):
                try:
                    times[name_of].append(milliseconds(one, machine.is_rehearsal))
                except Exception as error:  # what it had done before stays
                    record["peers"][name_of]["error"] = f"{type(error).__name__}: {error}"
                    del runners[name_of]
        for name_of in runners:
            record["peers"][name_of] |= summary(times[name_of])
        save()
    record["complete"] = True
    save()
    return record


def verdicts(record: dict[str, Any]) -> list[tuple[str, bool]]:
    """The targets of a record, and whether they are met; none that could not be measured."""
    ours = record["peers"].get("ours", {}).get("median_ms")
    if ours is None or record["is_rehearsal"]:
        return []
    others = [
        entry["median_ms"]
        for name, entry in record["peers"].items()
        if name not in ("ours", "an empty launch") and "median_ms" in entry
    ]
    found = []
    if record["target_ms"] is not None:
        found.append((f"at most {record['target_ms']:g} ms", ours <= record["target_ms"]))
    if record["ratio"] is not None and others:
        ratio = min(others) / ours
        text = f"best peer at least {record['ratio']:g} of our time: {ratio:.2f}"
        found.append((text, ratio >= record["ratio"]))
    empty = record["peers"].get("an empty launch", {}).get("median_ms")
    if empty is not None:
        text = f"at most twice an empty launch: {ours / empty:.2f}"
        found.append((text, ours <= 2 * empty))
    return found


def table(records: list[dict[str, Any]]) -> list[str]:
    """Markdown: a row per peer, the targets beside ours."""
    lines = ["| task | who | median ms | min to max | target |", "|---|---|---|---|---|"]
    for record in records:
        marks = "; ".join(f"{text} {'yes' if met else 'NO'}" for text, met in verdicts(record))
        for name, entry in record["peers"].items():
            if "median_ms" in entry:
                span = f"{entry['min_ms']:.4g} to {entry['max_ms']:.4g}"
                cells = f"{entry['median_ms']:.4g} | {span}"
            else:
                reason = entry.get("error", "not measured").splitlines()[0]
                cells = f"- | {reason[:120].replace('|', '/')}"
            lines.append(
                f"| {record['label']} | {name} | {cells} | {marks if name == 'ours' else ''} |"
            )
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="+", help='names of tasks, "all", or "export" and names')
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--rehearse", action="store_true", help="tiny, on the CPU and a fake driver"
    )
    parser.add_argument("--again", action="store_true", help="also what is complete")
    options = parser.parse_args()
    machine = Machine(options.rehearse)
    options.out.mkdir(parents=True, exist_ok=True)
    names = list(options.tasks)
    if names[0] == "export":
        for name in names[1:] or EXPORTS:
            start = time.perf_counter()
            networks.export(machine, name, options.out / "models" / name)
            print(f"export {name}: {time.perf_counter() - start:.0f} s")
        return 0
    makers = contests(machine, options.out)
    unknown = set(names) - {*makers, "all"}
    if unknown:
        raise SystemExit(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(makers)}")
    failed = 0
    for name in makers if names == ["all"] else names:
        path = options.out / f"contest-{name}.json"
        if path.exists() and not options.again:
            known = json.loads(path.read_text())
            if known["complete"] and known["is_rehearsal"] == machine.is_rehearsal:
                continue
        record = run(name, makers[name](), machine, options.out)
        failed += "median_ms" not in record["peers"]["ours"]
        print("\n".join(table([record])[2:]), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
