"""diffusers' schedulers around a Python ONNX Runtime session: the loop of its pipelines."""

from __future__ import annotations

import numpy as np

from benchmarks.loop_overhead.case import GUIDANCE, SEED, Case, Loop
from benchmarks.timing import require

NAME = "diffusers + onnxruntime"


def make(case: Case) -> Loop:
    require("torch", "diffusers", "onnxruntime")
    import diffusers
    import onnxruntime
    import torch

    scheduler = getattr(diffusers, case.scheduler_class)(**case.scheduler_config)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(case.graph, options, providers=["CPUExecutionProvider"])
    text = case.text

    def setup() -> tuple:
        generator = torch.Generator().manual_seed(SEED)
        scheduler.set_timesteps(case.steps)
        start = torch.randn(case.shape, generator=generator) * scheduler.init_noise_sigma
        return generator, start

    @torch.no_grad()
    def loop(state: tuple) -> np.ndarray:
        generator, x = state
        takes_generator = case.sampler in ("euler_ancestral", "ddim")
        extra = {"generator": generator} if takes_generator else {}
        for t in scheduler.timesteps:
            both = scheduler.scale_model_input(torch.cat([x, x]), t)
            feeds = {
                "sample": both.numpy(),
                "timestep": np.array(t, np.float32),
                "encoder_hidden_states": text,
            }
            output = torch.from_numpy(session.run(None, feeds)[0])
            negative, positive = output.chunk(2)
            output = negative + GUIDANCE * (positive - negative)
            x = scheduler.step(output, t, x, **extra, return_dict=False)[0]
        return x.numpy()

    return Loop(setup, loop)
