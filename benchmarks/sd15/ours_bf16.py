"""Our compiled network, of an engine that is in the cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.sd15.case import NetworkCase
from benchmarks.timing import NotInstalledError

if TYPE_CHECKING:
    from textopia_fast.engines import GraphSource

NAME = "textopia_fast bf16"
TARGET = "cpu-bf16"


def make(case: NetworkCase) -> Callable[[], np.ndarray]:
    session = open_engine(case.directory, case.threads).open(case.PART)
    feeds, output = case.feeds(), session.outputs[0].name
    return lambda: session.run(feeds)[output]


def open_engine(directory: Path, threads: int, target: str = TARGET) -> GraphSource:
    from textopia_fast.engines import GraphSource
    from textopia_fast.graph import compile_directory
    from textopia_fast.models import open_directory

    opened = open_directory(directory)
    return GraphSource(opened, compile_directory(opened, target), threads)


def prepare(directory: Path) -> None:
    """Compiles, before anything is timed: engines are measured warm."""
    from textopia_fast import _core
    from textopia_fast.graph import compile_directory
    from textopia_fast.models import open_directory

    if _core.active_matrix_unit() == "scalar":
        raise NotInstalledError("needs AMX or AVX512_BF16")
    compile_directory(open_directory(directory), TARGET)
