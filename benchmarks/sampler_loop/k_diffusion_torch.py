"""k-diffusion's samplers in torch, the network a torch function in its own denoiser class."""

from __future__ import annotations

import inspect

import numpy as np

from benchmarks.sampler_loop.case import K_NAMES, SEED, SHAPE, Case, Loop
from benchmarks.sampler_loop.diffusers_torch import torch_runs
from benchmarks.timing import NotInstalledError, require

NAME = "k-diffusion"


def make(case: Case) -> Loop:
    require("torch", "k_diffusion")
    import torch

    try:  # importing it takes packages that its samplers do not use
        from k_diffusion import sampling
        from k_diffusion.external import DiscreteEpsDDPMDenoiser
    except ImportError as error:
        raise NotInstalledError(f"not installed in full: {error}") from error

    sample = getattr(sampling, f"sample_{K_NAMES.get(case.sampler, case.sampler)}", None)
    if sample is None or "sigmas" not in inspect.signature(sample).parameters:
        raise NotInstalledError(f"k-diffusion has no {case.sampler}")
    function = case.network.torch()

    class Network(DiscreteEpsDDPMDenoiser):
        def get_eps(self, scaled: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return function(scaled, t[0])

    schedule = case.plan.schedule
    trained = torch.tensor(schedule.table.sigmas, dtype=torch.float64)
    network = Network(None, (1 / (1 + trained**2)).float(), quantize=False)
    takes_noise = "noise_sampler" in inspect.signature(sample).parameters

    @torch.no_grad()
    def run() -> np.ndarray:
        generator = torch.Generator().manual_seed(SEED)
        sigmas = torch.tensor(schedule.sigmas, dtype=torch.float32)
        x = torch.randn(SHAPE, generator=generator) * schedule.initial_scale
        extra = {}
        if takes_noise:
            extra["noise_sampler"] = lambda *_: torch.randn(SHAPE, generator=generator)
        return sample(network, x, sigmas, disable=True, **extra).numpy()

    return Loop(run, torch_runs(case))
