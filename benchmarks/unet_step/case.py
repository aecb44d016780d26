"""What every competitor of this task is given: one step of one picture, with guidance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.sd15.case import NetworkCase, normal

TIMESTEP = 500


@dataclass(frozen=True)
class Case(NetworkCase):
    PART = "unet"

    height: int = 64  # of the latents: 512 pixels
    width: int = 64
    tokens: int = 77
    text_width: int = 768

    def sample(self) -> np.ndarray:
        """One latent, float32 [1, 4, H, W]; both halves of guidance see the same."""
        return normal(1, (1, 4, self.height, self.width))

    def text(self) -> np.ndarray:
        """Embeddings of the negative and the positive prompt, float32 [2, T, D]."""
        return normal(2, (2, self.tokens, self.text_width))

    def feeds(self) -> dict[str, np.ndarray]:
        return {
            "sample": np.repeat(self.sample(), 2, axis=0),
            "timestep": np.array([TIMESTEP], np.int64),
            "encoder_hidden_states": self.text(),
        }
