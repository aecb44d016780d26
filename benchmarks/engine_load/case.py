"""What every competitor is given: a prompt, start noise, and two steps of DDIM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.sd15.case import NetworkCase, normal
from benchmarks.text_encoder.case import Case as TextCase
from benchmarks.unet_step.case import Case as UnetCase
from benchmarks.vae_decode.case import Case as VaeCase

STEPS = 2  # more take no more memory
GUIDANCE = 2.0
PROMPT = "a red circle"
SCALING = 0.18215
# the noise levels of Stable Diffusion, and their timesteps with "leading" spacing, offset 1
ALPHAS_CUMPROD = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
TIMESTEPS = [1 + 1000 // STEPS * k for k in reversed(range(STEPS))]

Network = Callable[[dict[str, np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Case:
    directory: Path
    threads: int

    def networks(self) -> tuple[NetworkCase, ...]:
        """Text encoder, U-Net and VAE decoder; a directory gives them its own lengths of text."""
        tokens = self.ids().shape[1]
        given = (self.directory, self.threads)
        return TextCase(*given, tokens), UnetCase(*given, tokens=tokens), VaeCase(*given)

    def ids(self) -> np.ndarray:
        """Tokens of an empty prompt and of PROMPT, int64 [2, T]."""
        from textopia_fast.text import Tokenizer

        return Tokenizer.from_directory(self.directory / "tokenizer").encode(["", PROMPT])

    def latents(self) -> np.ndarray:
        return normal(5, (1, 4, 64, 64))


def draw(case: Case, text_encoder: Network, unet: Network, vae_decoder: Network) -> np.ndarray:
    """A picture, float32 [1, H, W, 3] in 0..1, of networks that take the feeds of the exports."""
    ids = case.ids().astype(np.int64)
    text = np.concatenate([text_encoder({"input_ids": row[None]}) for row in ids])
    x = case.latents()
    for k, t in enumerate(TIMESTEPS):
        before = TIMESTEPS[k + 1] if k + 1 < STEPS else 0
        a, b = ALPHAS_CUMPROD[t], ALPHAS_CUMPROD[before]
        feeds = {"sample": np.repeat(x, 2, axis=0), "timestep": np.array([t], np.int64)}
        u, c = unet({**feeds, "encoder_hidden_states": text})
        eps = u + GUIDANCE * (c - u)
        clean = (x - (1 - a) ** 0.5 * eps) / a**0.5
        x = (b**0.5 * clean + (1 - b) ** 0.5 * eps).astype(np.float32)
    image = vae_decoder({"latent_sample": x / np.float32(SCALING)})
    return np.clip(image / 2 + 0.5, 0, 1).transpose(0, 2, 3, 1)
