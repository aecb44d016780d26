"""textopia_fast: the native loop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import textopia_fast as tx
from benchmarks.loop_overhead.case import GUIDANCE, SEED, Case, Loop
from textopia_fast.noise import draw

NAME = "textopia_fast"


def make(case: Case) -> Loop:
    denoiser = tx.Denoiser(case.graph, threads=1)
    negative, positive = np.split(case.text, 2)

    def setup() -> tuple:
        program = tx.samplers.trace_plan(case.plan())
        stream = tx.Noise.torch(SEED).stream(case.images)
        start = draw(stream, case.shape) * np.float32(program.initial_scale)
        return program, stream, start

    def loop(state: tuple) -> np.ndarray:
        program, stream, start = state
        return tx.sample(
            denoiser,
            start,
            program,
            cond={"encoder_hidden_states": positive},
            uncond={"encoder_hidden_states": negative},
            guidance=GUIDANCE,
            noise=stream,
        )

    return Loop(setup, loop)


def make_bare(case: Case) -> Callable[[], float]:
    """The graph runs alone, over buffers bound once: seconds of as many runs as the loop has."""
    session = tx.Denoiser(case.graph, threads=1).session
    feeds = {
        "sample": np.ones((2 * case.images, *case.shape[1:]), np.float32),
        "timestep": np.array(500.0, np.float32),
        "encoder_hidden_states": case.text,
    }
    return lambda: session.run_repeatedly(feeds, case.steps)
