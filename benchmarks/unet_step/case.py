"""What every competitor of this task is given: one step of one picture, with guidance."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from benchmarks.sd15.case import NetworkCase, normal

TIMESTEP = 500
POOLED_WIDTH = 1280


@dataclass(frozen=True)
class Case(NetworkCase):
    PART = "unet"

    tokens: int = 77

    @cached_property
    def config(self) -> dict[str, Any]:
        return json.loads((self.directory / "unet" / "config.json").read_text())

    @property
    def is_xl(self) -> bool:
        """Whether the U-Net takes pooled embeddings and sizes, as that of Stable Diffusion XL."""
        return self.config.get("addition_embed_type") == "text_time"

    @property
    def pixels(self) -> int:
        """Height and width of the picture."""
        return 8 * self.config["sample_size"]

    @property
    def title(self) -> str:
        model = "XL" if self.is_xl else "1.5"
        return f"Stable Diffusion {model}, {self.pixels}x{self.pixels}, batch 2"

    def sample(self) -> np.ndarray:
        """One latent, float32 [1, 4, H, W]; both halves of guidance see the same."""
        side = self.config["sample_size"]
        return normal(1, (1, 4, side, side))

    def prompt(self) -> dict[str, np.ndarray]:
        """What the network takes of the negative and the positive prompt, float32 [2, ...]."""
        fed = {"encoder_hidden_states": normal(2, (2, self.tokens, self._text_width))}
        if self.is_xl:
            # pixels of the original picture, where it was cut, and of the one to make
            sizes = [self.pixels, self.pixels, 0, 0, self.pixels, self.pixels]
            fed["text_embeds"] = normal(6, (2, POOLED_WIDTH))
            fed["time_ids"] = np.array([sizes, sizes], np.float32)
        return fed

    def feeds(self) -> dict[str, np.ndarray]:
        return {
            "sample": np.repeat(self.sample(), 2, axis=0),
            "timestep": np.array([TIMESTEP], np.int64),
            **self.prompt(),
        }

    @property
    def _text_width(self) -> int:
        return self.config["cross_attention_dim"]
