"""Langevin dynamics on a small score network: ours against a torch loop like score_sde's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import textopia_fast as tx
from benchmarks.sampler_loop.case import SEED, Loop
from benchmarks.sampler_loop.networks import Network
from benchmarks.timing import require
from textopia_fast.noise import draw
from textopia_fast.schedules.levels import explicit

SIGMA = 0.5
ETA = 0.1 * SIGMA**2
SNR = 0.16
UPDATES = 1000


def programs() -> dict[str, tx.samplers.Program]:
    """The same 1,000 updates with a fixed step, and with the step from the norms."""
    levels = explicit([SIGMA] * (UPDATES + 1))
    options = {"predictor": "none", "norm": "batch", "snr": SNR}
    return {
        "langevin": tx.langevin(SIGMA, UPDATES, eta=ETA),
        "langevin, step from norms": tx.trace(
            "predictor_corrector", levels, prediction="score", **options
        ),
    }


def ours(name: str, network: Network, chains: int) -> Loop:
    program = programs()[name]
    denoiser = tx.Denoiser(network.graph, prediction="score", noise_input="sigma", threads=1)

    def run() -> np.ndarray:
        stream = tx.Noise.torch(SEED).stream(1)
        start = draw(stream, (1, chains, 2))[0]
        return tx.sample(denoiser, start, program, noise=tx.Noise.torch(SEED + 1))

    feeds = {"sample": np.ones((chains, 2), np.float32), "timestep": np.array(SIGMA, np.float32)}
    return Loop(run, lambda: denoiser.session.run_repeatedly(feeds, UPDATES))


def torch_loop(name: str, network: Network, chains: int) -> Loop:
    require("torch")
    import torch

    score = network.torch()
    sigma = torch.tensor(SIGMA)
    update = _fixed_step if name == "langevin" else _step_from_norms

    @torch.no_grad()
    def run() -> np.ndarray:
        generator = torch.Generator().manual_seed(SEED)
        x = torch.randn((chains, 2), generator=generator)
        for _ in range(UPDATES):
            x = update(x, score(x, sigma), torch.randn(x.shape, generator=generator))
        return x.numpy()

    @torch.no_grad()
    def bare() -> None:
        x = torch.ones((chains, 2))
        for _ in range(UPDATES):
            score(x, sigma)

    return Loop(run, bare)


def _fixed_step(x: Any, grad: Any, noise: Any) -> Any:
    return x + ETA * grad + (2 * ETA) ** 0.5 * noise


def _step_from_norms(x: Any, grad: Any, noise: Any) -> Any:
    """Song et al. 2021, algorithm 5, norms as means over the batch."""
    grad_norm = grad.reshape(grad.shape[0], -1).norm(dim=-1).mean()
    noise_norm = noise.reshape(noise.shape[0], -1).norm(dim=-1).mean()
    step = 2 * (SNR * noise_norm / grad_norm) ** 2
    return x + step * grad + (2 * step) ** 0.5 * noise


COMPETITORS: dict[str, Callable[[str, Network, int], Loop]] = {
    "textopia_fast": ours,
    "torch loop": torch_loop,
}
