"""Watches a training run: samples held-out prompts from the latest weights, reads the pictures.

    python training/monitor.py [--count 96] [--guidance 4] [--sheet PNG] [--work training/work]

Torch only, straight from the checkpoints; `evaluate.py` judges the exported model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from evaluate import accuracies, held_out_prompts, table, write_sheet
from make_latents import load_vae, to_pictures
from networks import LATENT_SIZE
from objective import STEPS, cumulative_alphas
from parallel import log
from tokenizer import CaptionEncoder
from train_denoiser import Denoiser


class Sampler:
    """The trained networks with the guided noise-free estimate that every sampler needs."""

    def __init__(self, work: Path):
        stored = torch.load(work / "denoiser.pt")
        self.step = stored["step"]
        self.model = Denoiser(stored["vocabulary"]).eval()
        self.model.load_state_dict(stored["state"], strict=False)
        self.vae = load_vae(work)
        self.scale = torch.load(work / "latents.pt", mmap=True)["scale"]
        self.encode = CaptionEncoder(work / "tokenizer")
        self.alphas = cumulative_alphas()

    def text(self, captions: list[str]) -> torch.Tensor:
        """Unconditional and conditional text states, float32 [2B, T, D]."""
        ids = torch.tensor([self.encode(c) for c in [""] * len(captions) + captions])
        return self.model.text(ids).last_hidden_state

    def denoise(self, z, t: int, text, guidance: float) -> torch.Tensor:
        """The guided estimate of the clean latent from z = sqrt(a) x + sqrt(1 - a) e."""
        v0, v1 = self.model.unet(torch.cat([z, z]), float(t), text).sample.chunk(2)
        v, a = v0 + guidance * (v1 - v0), self.alphas[t]
        return a.sqrt() * z - (1 - a).sqrt() * v

    def ddim(self, captions: list[str], steps: int, guidance: float, seed: int) -> torch.Tensor:
        """Latents float32 [B, 4, 8, 8] by DDIM (Song et al. 2021) with eta = 0."""
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(len(captions), 4, LATENT_SIZE, LATENT_SIZE, generator=generator)
        text = self.text(captions)
        times = [round(STEPS * (steps - k) / steps) - 1 for k in range(steps)]
        for t, t_next in zip(times, [*times[1:], None], strict=True):
            x = self.denoise(z, t, text, guidance)
            if t_next is None:
                return x
            a, b = self.alphas[t], self.alphas[t_next]
            z = b.sqrt() * x + (1 - b).sqrt() * (z - a.sqrt() * x) / (1 - a).sqrt()

    def pictures(self, latents: torch.Tensor) -> np.ndarray:
        """uint8 [B, 64, 64, 3]."""
        return to_pictures(self.vae.decode(latents / self.scale).sample)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    parser.add_argument("--count", type=int, default=96)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, nargs="+", default=[4.0])
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sampler = Sampler(options.work)
    scenes, captions = held_out_prompts(options.count)
    for guidance in options.guidance:
        latents = sampler.ddim(captions, options.steps, guidance, seed=1)
        pictures = sampler.pictures(latents)
        log(f"step {sampler.step} guidance {guidance} {table(accuracies(scenes, pictures))}")
        if options.sheet:
            write_sheet(options.sheet, pictures)


if __name__ == "__main__":
    main()
