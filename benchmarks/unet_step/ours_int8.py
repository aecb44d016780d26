"""The body of our compiled U-Net in int8, which runs all steps but the first and the last ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.sd15.ours_bf16 import engine_of
from benchmarks.timing import NotInstalledError
from benchmarks.unet_step.case import Case
from benchmarks.unet_step.ours_bf16 import open_step

NAME = "textopia_fast int8"
TARGET = "cpu-int8"


def make(case: Case) -> Callable[[], np.ndarray]:
    from textopia_fast import _core

    if _core.int8_unit() == "scalar":
        raise NotInstalledError("needs AMX INT8 or AVX512_VNNI")
    step, sample = open_step(case, TARGET, "body_int8"), case.sample()
    return lambda: step(sample)


def prepare(directory: Path) -> None:
    """Compiles, before anything is timed."""
    from textopia_fast import _core

    if _core.int8_unit() != "scalar":
        engine_of(directory, target=TARGET)
