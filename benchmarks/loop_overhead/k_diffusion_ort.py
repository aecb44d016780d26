"""k-diffusion's samplers over torch, the network in a Python ONNX Runtime session."""

from __future__ import annotations

import numpy as np

from benchmarks.loop_overhead.case import GUIDANCE, SEED, Case, Loop
from benchmarks.timing import NotInstalledError, require

NAME = "k-diffusion + onnxruntime"


def make(case: Case) -> Loop:
    require("torch", "k_diffusion", "onnxruntime")
    import onnxruntime
    import torch

    try:  # importing it takes packages that its samplers do not use
        from k_diffusion import sampling
        from k_diffusion.external import DiscreteEpsDDPMDenoiser
    except ImportError as error:
        raise NotInstalledError(f"not installed in full: {error}") from error

    if case.sampler == "ddim":
        raise NotInstalledError("k-diffusion has no ddim")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(case.graph, options, providers=["CPUExecutionProvider"])
    text = case.text

    class Network(DiscreteEpsDDPMDenoiser):
        """Sees both halves at once and guides, as the interfaces built on k-diffusion do."""

        def get_eps(self, scaled: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            feeds = {
                "sample": torch.cat([scaled, scaled]).numpy(),
                "timestep": np.array(t[0], np.float32),
                "encoder_hidden_states": text,
            }
            output = torch.from_numpy(session.run(None, feeds)[0])
            negative, positive = output.chunk(2)
            return negative + GUIDANCE * (positive - negative)

    schedule = case.plan().schedule
    trained = torch.tensor(schedule.table.sigmas, dtype=torch.float64)
    network = Network(None, (1 / (1 + trained**2)).float(), quantize=False)
    sample = getattr(sampling, f"sample_{case.sampler}")

    def setup() -> tuple:
        generator = torch.Generator().manual_seed(SEED)
        sigmas = torch.tensor(schedule.sigmas, dtype=torch.float32)
        start = torch.randn(case.shape, generator=generator) * schedule.initial_scale
        return generator, sigmas, start

    @torch.no_grad()
    def loop(state: tuple) -> np.ndarray:
        generator, sigmas, x = state
        extra = {}
        if case.sampler == "euler_ancestral":
            extra["noise_sampler"] = lambda *_: torch.randn(x.shape, generator=generator)
        return sample(network, x, sigmas, disable=True, **extra).numpy()

    return Loop(setup, loop)
