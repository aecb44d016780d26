"""diffusers' Euler scheduler around a Python ONNX Runtime session."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tests.support.cheap_unet import TOKENS, cheap_unet

from benchmarks.gil.ours import WIDTH
from benchmarks.timing import require

NAME = "diffusers + onnxruntime"
STEPS = 100


def make(seconds: float) -> Callable[[], object]:
    """A run in one thread that lasts about `seconds`."""
    require("torch", "diffusers", "onnxruntime")
    import time

    import onnxruntime
    import torch
    from diffusers import EulerDiscreteScheduler

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    graph = cheap_unet(WIDTH, repeat=20)
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    scheduler = EulerDiscreteScheduler()
    text = np.ones((1, TOKENS, WIDTH), np.float32)

    def once() -> None:
        scheduler.set_timesteps(STEPS)
        x = torch.ones(1, 4, 64, 64)
        for t in scheduler.timesteps:
            feeds = {
                "sample": scheduler.scale_model_input(x, t).numpy(),
                "timestep": np.array(t, np.float32),
                "encoder_hidden_states": text,
            }
            output = torch.from_numpy(session.run(None, feeds)[0])
            x = scheduler.step(output, t, x, return_dict=False)[0]

    once()
    start = time.perf_counter()
    once()
    calls = max(1, round(seconds / (time.perf_counter() - start)))
    return lambda: [once() for _ in range(calls)]
