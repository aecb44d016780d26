"""Records k-diffusion's sample_dpm_adaptive: tests/golden/dpm_adaptive.npz.

    python -m tests.golden.make_dpm_adaptive --k-diffusion path/to/k_diffusion/sampling.py

from the root of the repository; needs what `make_sampler_goldens` needs.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from tests.golden.sampler_cases import Draws, initial_noise

OUTPUT = Path(__file__).with_name("dpm_adaptive.npz")
SIGMA_MIN, SIGMA_MAX = 0.03, 14.6
COUNTS = ("steps", "nfe", "n_accept", "n_reject")
CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "order 2": {"order": 2},
    "eta": {"eta": 0.7},
    "eta 1, order 2": {"eta": 1.0, "order": 2, "s_noise": 0.9},
    "controller": {"rtol": 0.01, "pcoeff": 0.2, "dcoeff": 0.1},
    "long first step": {"h_init": 3.0},
    "strict": {"rtol": 1e-3, "atol": 1e-4, "accept_safety": 0.9},
    "loose": {"rtol": 0.5, "atol": 0.1, "order": 2},
}


def record(k_diffusion: str | None) -> None:
    """Writes the latents, counts, and per step t and error of every case."""
    import torch

    from tests.golden.make_sampler_goldens import load_sampling, torch_network

    def model(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        s = sigma.view(-1, 1, 1, 1)
        return x - s * torch_network(x / (1 + s**2) ** 0.5, s)

    sampling = load_sampling(k_diffusion)
    arrays: dict[str, np.ndarray] = {}
    for name, options in CASES.items():
        draws, shown = Draws(), []
        x, info = sampling.sample_dpm_adaptive(
            model,
            torch.from_numpy(initial_noise()) * SIGMA_MAX,
            SIGMA_MIN,
            SIGMA_MAX,
            disable=True,
            callback=shown.append,
            # It asks for noise that it multiplies by 0, too; ours does not.
            noise_sampler=lambda start, end, draws=draws, options=options: (
                torch.from_numpy(draws()) if options.get("eta") else 0.0
            ),
            return_info=True,
            **options,
        )
        arrays[f"{name}/x"] = x.numpy()
        arrays[f"{name}/counts"] = np.array([info[count] for count in COUNTS])
        arrays[f"{name}/t"] = np.array([float(entry["t"]) for entry in shown])
        arrays[f"{name}/error"] = np.array([float(entry["error"]) for entry in shown])
    np.savez_compressed(OUTPUT, **arrays)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--k-diffusion", help="k_diffusion/sampling.py")
    record(parser.parse_args().k_diffusion)
