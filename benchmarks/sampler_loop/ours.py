"""textopia_fast: the native loop."""

from __future__ import annotations

import numpy as np

import textopia_fast as tx
from benchmarks.sampler_loop.case import SEED, SHAPE, Case, Loop
from textopia_fast.noise import draw

NAME = "textopia_fast"


def make(case: Case) -> Loop:
    program = case.program
    denoiser = tx.Denoiser(case.network.graph, prediction=program.prediction, threads=1)

    def run() -> np.ndarray:
        stream = tx.Noise.torch(SEED).stream(SHAPE[0])
        start = draw(stream, SHAPE) * np.float32(program.initial_scale)
        return tx.sample(denoiser, start, program, noise=stream)

    feeds = {"sample": np.ones(SHAPE, np.float32), "timestep": np.array(500.0, np.float32)}
    return Loop(run, lambda: denoiser.session.run_repeatedly(feeds, case.network_runs))
