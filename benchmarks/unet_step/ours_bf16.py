"""The body of our compiled U-Net; what it takes of the prompt and the timestep is made once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.timing import NotInstalledError
from benchmarks.unet_step.case import TIMESTEP, Case
from textopia_fast import _core
from textopia_fast.engines import GraphSource
from textopia_fast.graph import compile_directory
from textopia_fast.models import open_directory

NAME = "textopia_fast bf16"


def make(case: Case) -> Callable[[], np.ndarray]:
    if _core.active_matrix_unit() == "scalar":
        raise NotInstalledError("needs AMX or AVX512_BF16")
    directory = open_directory(case.directory)
    source = GraphSource(directory, compile_directory(directory, "cpu-bf16"), case.threads)
    body, time, prompt = (source.open("unet", name) for name in ("body", "time", "prompt"))
    # bfloat16 crosses as uint16 bits.
    feeds = {"sample": case.sample()}
    feeds |= time.run({"timestep": np.array([TIMESTEP], time.inputs[0].dtype)})
    feeds |= prompt.run({"encoder_hidden_states": case.text()})
    return lambda: body.run(feeds)["out_sample"]


def prepare(case: Case) -> None:
    """Compiles, before anything is timed: engines are measured warm."""
    compile_directory(open_directory(case.directory), "cpu-bf16")
