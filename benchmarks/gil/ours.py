"""textopia_fast: the GIL is released for the whole run."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tests.support.cheap_unet import TOKENS, cheap_unet

import textopia_fast as tx

NAME = "textopia_fast"
WIDTH = 8


def make(seconds: float) -> Callable[[], object]:
    """A run in one thread that lasts about `seconds`."""
    denoiser = tx.Denoiser(cheap_unet(WIDTH, repeat=20), threads=1)
    x = np.ones((1, 4, 64, 64), np.float32)
    cond = {"encoder_hidden_states": np.ones((1, TOKENS, WIDTH), np.float32)}
    feeds = {"sample": x, "timestep": np.array(1.0, np.float32), **cond}
    each = denoiser.session.run_repeatedly(feeds, 20) / 20
    steps = min(1000, max(10, round(seconds / each)))
    table = tx.samplers.TrainingTable(1000, 0.00085, 0.012, "scaled_linear")
    program = tx.trace("euler", tx.schedules.discrete(steps, table))
    calls = max(1, round(seconds / (each * steps)))
    return lambda: [tx.sample(denoiser, x, program, cond=cond) for _ in range(calls)]
