"""diffusers' schedulers in torch, the network a torch function: the loop of its pipelines."""

from __future__ import annotations

import inspect

import numpy as np

from benchmarks.sampler_loop.case import SEED, SHAPE, Case, Loop
from benchmarks.timing import NotInstalledError, require

NAME = "diffusers"


def make(case: Case) -> Loop:
    require("torch", "diffusers")
    import diffusers
    import torch

    found = getattr(diffusers, case.scheduler_class or "", None)
    if found is None:
        raise NotInstalledError(f"diffusers has no {case.sampler}")
    try:
        scheduler = found.from_config(case.config)
    except ImportError as error:
        raise NotInstalledError(f"not installed: {error}") from error
    network = case.network.torch()
    takes_generator = "generator" in inspect.signature(scheduler.step).parameters
    scales = hasattr(scheduler, "scale_model_input")

    @torch.no_grad()
    def run() -> np.ndarray:
        generator = torch.Generator().manual_seed(SEED)
        scheduler.set_timesteps(case.steps)
        x = torch.randn(SHAPE, generator=generator)
        x = x * getattr(scheduler, "init_noise_sigma", 1.0)
        extra = {"generator": generator} if takes_generator else {}
        for t in scheduler.timesteps:
            output = network(scheduler.scale_model_input(x, t) if scales else x, t)
            x = scheduler.step(output, t, x, **extra, return_dict=False)[0]
        return x.numpy()

    return Loop(run, torch_runs(case))


def torch_runs(case: Case):
    """The network runs alone, in torch."""
    import torch

    network = case.network.torch()
    x, t = torch.ones(SHAPE), torch.tensor(500.0)

    @torch.no_grad()
    def bare() -> None:
        for _ in range(case.network_runs):
            network(x, t)

    return bare
