"""The body of our compiled U-Net; what it takes of the prompt and the timestep is made once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.sd15.ours_bf16 import NAME, TARGET, open_engine, prepare
from benchmarks.unet_step.case import TIMESTEP, Case

__all__ = ["NAME", "make", "open_step", "prepare"]


def make(case: Case) -> Callable[[], np.ndarray]:
    step, sample = open_step(case), case.sample()
    return lambda: step(sample)


def open_step(
    case: Case, target: str = TARGET, graph: str = "body"
) -> Callable[[np.ndarray], np.ndarray]:
    """A function of a latent of any size, float32 [1, 4, H, W]."""
    source = open_engine(case.directory, case.threads, target)
    body, time, prompt = (source.open("unet", name) for name in (graph, "time", "prompt"))
    # bfloat16 crosses as uint16 bits.
    fixed = time.run({"timestep": np.array([TIMESTEP], time.inputs[0].dtype)})
    fixed |= prompt.run(case.prompt())
    return lambda sample: body.run({"sample": sample, **fixed})["out_sample"]
