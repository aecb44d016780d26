"""Records sampler trajectories of diffusers and k-diffusion: tests/golden/sampler_trajectories.npz.

    python -m tests.golden.make_sampler_goldens --k-diffusion path/to/k_diffusion/sampling.py

from the root of the repository. Needs torch, diffusers and scipy; of k-diffusion only the file
sampling.py is read (from the unpacked wheel, or without the argument from the installed package),
because the package itself imports much more. The versions are written into the file.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.golden.sampler_cases import (
    Case,
    Draws,
    diffusers_cases,
    dpm_fast_cases,
    initial_noise,
    k_diffusion_cases,
    network,
)

OUTPUT = Path(__file__).with_name("sampler_trajectories.npz")


def torch_network(x: torch.Tensor, noise_level: Any) -> torch.Tensor:
    """The network of the cases, in float32."""
    level = torch.as_tensor(noise_level, dtype=torch.float32)
    return network(x, level, torch.tanh, torch.cos)


def run_diffusers(case: Case) -> dict[str, np.ndarray]:
    """Latents after every network run, and what the scheduler said of its schedule."""
    import diffusers

    scheduler_class = getattr(diffusers, case.source)
    scheduler = scheduler_class.from_config(dict(case.config))
    module = sys.modules[scheduler_class.__module__]
    draws = Draws()
    had = getattr(module, "randn_tensor", None)
    had_tree = getattr(module, "BrownianTreeNoiseSampler", None)
    module.randn_tensor = lambda *_, **__: torch.from_numpy(draws())
    module.BrownianTreeNoiseSampler = lambda *_: BrownianMotion(draws)
    options = dict(case.options)
    shift = {"mu": options.pop("mu")} if "mu" in options else {}
    try:
        scheduler.set_timesteps(case.steps, **shift)
        init = float(getattr(scheduler, "init_noise_sigma", 1.0))  # flow matching has none
        scale = getattr(scheduler, "scale_model_input", lambda x, t: x)
        x = torch.from_numpy(initial_noise()) * init
        trajectory = []
        for t in scheduler.timesteps:
            output = torch_network(scale(x, t), t)
            x = scheduler.step(output, t, x, **options).prev_sample
            trajectory.append(x.numpy())
    finally:
        module.randn_tensor, module.BrownianTreeNoiseSampler = had, had_tree
    sigmas = getattr(scheduler, "sigmas", None)
    return {
        "trajectory": np.stack(trajectory),
        "timesteps": scheduler.timesteps.numpy(),
        "sigmas": np.zeros(0) if sigmas is None else sigmas.numpy(),
        "init": np.array([init]),
    }


def run_k_diffusion(case: Case, sampling: types.ModuleType) -> dict[str, np.ndarray]:
    """The final latents (its callbacks show them before the step)."""
    config = dict(case.config)
    ends: tuple[Any, ...] = ()
    if case.source == "sample_dpm_fast":
        ends = (config["sigma_min"], config["sigma_max"], case.steps)
        config["schedule"] = "exponential"
    sigmas = getattr(sampling, f"get_sigmas_{config.pop('schedule')}")(case.steps, **config)
    draws = Draws()

    def denoised(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        s = sigma.view(-1, 1, 1, 1)
        return x - s * torch_network(x / (1 + s**2) ** 0.5, s)

    options = dict(case.options)
    if case.source.endswith("sde"):
        options["noise_sampler"] = BrownianMotion(draws)
    had = sampling.torch.randn_like
    sampling.torch.randn_like = lambda x: torch.from_numpy(draws())
    try:
        x = torch.from_numpy(initial_noise()) * sigmas[0]
        x = getattr(sampling, case.source)(
            denoised, x, *(ends or (sigmas,)), disable=True, **options
        )
    finally:
        sampling.torch.randn_like = had
    return {
        "trajectory": x.numpy()[None],
        "timesteps": sigmas[:-1].numpy(),
        "sigmas": sigmas.numpy(),
        "init": sigmas[:1].numpy(),
    }


class BrownianMotion:
    """k-diffusion's noise_sampler on given draws: normalised increments of one path over sigma.

    Asked for (s, mid) and then (s, t) with mid between, the second contains the first.
    """

    def __init__(self, draws: Draws) -> None:
        self._draws = draws
        self._path: dict[float, torch.Tensor | float] = {}
        self._lowest = float("inf")

    def __call__(self, sigma: torch.Tensor, sigma_next: torch.Tensor) -> torch.Tensor:
        start, end = round(float(sigma), 6), round(float(sigma_next), 6)
        if not self._path:
            self._path[start], self._lowest = 0.0, start
        # float32 arithmetic may miss the start of a step by a rounding error
        start = min(self._path, key=lambda known: abs(known - start))
        if end < self._lowest:
            step = (self._lowest - end) ** 0.5 * torch.from_numpy(self._draws())
            self._path[end] = self._path[self._lowest] + step
            self._lowest = end
        return (self._path[end] - self._path[start]) / (start - end) ** 0.5


def load_sampling(path: str | None) -> types.ModuleType:
    """k-diffusion's sampling.py alone; what it imports without need here is left empty."""
    if path is None:
        (folder,) = importlib.util.find_spec("k_diffusion").submodule_search_locations
        path = f"{folder}/sampling.py"
    for name, members in {
        "torchdiffeq": ("odeint",),
        "torchsde": (),
        "scipy": ("integrate",),
        "k_diffusion_alone": (),
        "k_diffusion_alone.utils": (),
    }.items():
        if name == "scipy" and importlib.util.find_spec("scipy") is not None:
            continue
        module = types.ModuleType(name)
        for member in members:
            setattr(module, member, None)
        sys.modules[name] = module
    utils = sys.modules["k_diffusion_alone.utils"]
    utils.append_dims = lambda x, dims: x[(...,) + (None,) * (dims - x.ndim)]
    sys.modules["k_diffusion_alone"].utils = utils
    spec = importlib.util.spec_from_file_location("k_diffusion_alone.sampling", path)
    sampling = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sampling)
    return sampling


def record(k_diffusion: str | None) -> None:
    """Writes the file."""
    results = [(case, run_diffusers(case)) for case in diffusers_cases()]
    sampling = load_sampling(k_diffusion)
    results += [
        (case, run_k_diffusion(case, sampling)) for case in k_diffusion_cases() + dpm_fast_cases()
    ]
    parts = ("trajectory", "timesteps", "sigmas", "init")
    index = [
        {"name": case.name, **{part: list(result[part].shape) for part in parts}}
        for case, result in results
    ]
    versions = {
        "diffusers": importlib.metadata.version("diffusers"),
        "torch": torch.__version__,
        "k-diffusion": "0.1.1.post1",
        "script": "tests/golden/make_sampler_goldens.py",
    }
    flat = {
        part: np.concatenate([result[part].ravel().astype(np.float32) for _, result in results])
        for part in parts
    }
    np.savez_compressed(
        OUTPUT, index=np.array(json.dumps(index)), versions=np.array(json.dumps(versions)), **flat
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--k-diffusion", help="path of k-diffusion's sampling.py")
    record(parser.parse_args().k_diffusion)
