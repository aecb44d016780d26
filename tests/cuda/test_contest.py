"""The contests of benchmarks/gpu, without a GPU: what is written down, and what is left out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")  # which the launches of kernels are described with

from benchmarks.gpu import contest
from benchmarks.gpu.clock import Runner
from benchmarks.gpu.contest import Contest
from benchmarks.gpu.networks import Machine

ROOT = Path(__file__).parents[2]


def takes(milliseconds: float) -> Any:
    return lambda: Runner(lambda: milliseconds, measures=True)


def broken() -> Runner:
    raise ImportError("no such library")


def breaks_later() -> Any:
    left = [contest.WARM_UP + 1]

    def run() -> float:
        left[0] -= 1
        if left[0] < 0:
            raise MemoryError("full")
        return 1.0

    return Runner(run, measures=True)


def test_one_that_fails_loses_no_other(tmp_path):
    peers = {"ours": takes(2.0), "a": broken, "b": breaks_later, "c": takes(5.0)}
    record = contest.run("t", Contest("task", peers, 4.0, 1.0), Machine(True), tmp_path)
    assert record == json.loads((tmp_path / "contest-t.json").read_text())
    assert record["complete"]
    found = record["peers"]
    assert (found["ours"]["median_ms"], found["c"]["median_ms"]) == (2.0, 5.0)
    assert found["ours"]["runs"] == contest.ROUNDS
    assert "no such library" in found["a"]["error"]
    assert found["a"]["at"].startswith("test_contest.py:")
    assert "full" in found["b"]["error"]


def test_what_was_measured_outlives_the_process(tmp_path):
    def ends() -> Runner:
        raise SystemExit("as a time limit does")

    peers = {"ours": takes(2.0), "slow": ends}
    with pytest.raises(SystemExit):
        contest.run("t", Contest("task", peers), Machine(True), tmp_path)
    record = json.loads((tmp_path / "contest-t.json").read_text())
    assert record["peers"]["ours"]["median_ms"] == 2.0
    assert record["peers"]["slow"] == {"error": "did not finish in its time"}
    assert not record["complete"]


@pytest.mark.parametrize(
    ("ours", "best", "target", "ratio", "met"),
    [
        (3.0, 3.5, 4.0, 1.0, [True, True]),
        (5.0, 4.9, 4.0, 1.0, [False, False]),
        (1.0, 0.96, None, 0.95, [True]),
        (1.0, None, 4.0, 1.0, [True]),
        (None, 3.0, 4.0, 1.0, []),
    ],
)
def test_targets(ours, best, target, ratio, met):
    peers = {"ours": {"error": "x"} if ours is None else {"median_ms": ours}}
    if best is not None:
        peers |= {"slower": {"median_ms": 2 * best}, "best": {"median_ms": best}}
    record = {"peers": peers, "target_ms": target, "ratio": ratio, "is_rehearsal": False}
    assert [yes for _, yes in contest.verdicts(record)] == met
    assert contest.verdicts(record | {"is_rehearsal": True}) == []


def test_combine_is_also_compared_with_an_empty_launch():
    peers = {
        name: {"median_ms": value} for name, value in (("ours", 3.0), ("an empty launch", 2.0))
    }
    record = {"peers": peers, "target_ms": None, "ratio": 10.0, "is_rehearsal": False}
    assert contest.verdicts(record) == [("at most twice an empty launch: 1.50", True)]


def test_the_table():
    span = {"min_ms": 1.0, "max_ms": 3.0}
    peers = {"ours": {"median_ms": 2.0, **span}, "theirs": {"error": "a | b\nc"}}
    record = {"label": "task", "peers": peers, "target_ms": 1.0, "ratio": None}
    lines = contest.table([record | {"is_rehearsal": False}])
    assert lines[2] == "| task | ours | 2 | 1 to 3 | at most 1 ms NO |"
    assert lines[3] == "| task | theirs | - | a / b |  |"
    assert len({line.count("|") for line in lines}) == 1


def test_a_rehearsal_from_the_command_line(tmp_path):
    """The bare loop over the fake driver; a second call finds it complete."""
    pytest.importorskip("onnx")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu.contest", "loop"]
    command += ["--rehearse", "--out", str(tmp_path)]
    outputs = []
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    assert "loop overhead" in outputs[0]
    assert outputs[1] == ""
    record = json.loads((tmp_path / "contest-loop.json").read_text())
    assert record["complete"]
    assert record["is_rehearsal"]
    assert "median_ms" in record["peers"]["ours"]
