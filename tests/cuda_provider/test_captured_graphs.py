"""The rules of the provider's CUDA graphs that the loop is built on, as the provider keeps them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CAPTURED = {"Capture": 2, "GraphLaunch": 1, "Synchronize": 1, "MemcpyAsync": 3}
REPLAYED = {"GraphLaunch": 1}


@pytest.fixture(scope="module")
def facts(ort_folder: Path, libraries: Path) -> dict[str, object]:
    # The package that is installed beside this one would be found first in this process.
    program = Path(__file__).with_name("graph_facts.py")
    import textopia_fast

    done = subprocess.run(
        [sys.executable, str(program), str(ort_folder), str(libraries / "nvidia/fake/lib")],
        env={"PYTHONPATH": f"{ROOT}:{Path(textopia_fast.__file__).parents[1]}"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_the_first_run_captures_and_the_others_replay(facts):
    # Twice as it is, once more while it is captured, and then the graph.
    assert facts["first run"] == CAPTURED
    assert facts["second run"] == REPLAYED
    assert facts["a run that waits"] == REPLAYED | {"Synchronize": 1}
    assert facts["streams"] == 1


def test_a_replay_sees_new_contents_but_not_another_binding(facts):
    assert facts["new contents are seen"] == 2.0
    assert facts["another binding, same id"] == REPLAYED
    assert facts["it wrote"] == 0.0  # nothing: the graph wrote where the first binding wants it


def test_each_id_is_a_graph_of_its_own_and_minus_one_none(facts):
    assert facts["another id"] == CAPTURED
    assert facts["that wrote"] == 5.0
    assert facts["no graph"] == {"MemcpyAsync": 1}
    assert facts["which wrote"] == 5.0
    assert facts["no id"] == CAPTURED  # of id 0
    assert facts["no id again"] == REPLAYED


def test_graphs_belong_to_threads(facts):
    assert facts["another thread, same id"] == CAPTURED
