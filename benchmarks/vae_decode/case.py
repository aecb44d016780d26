"""What every competitor of this task is given: the latents of one picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.sd15.case import NetworkCase, normal


@dataclass(frozen=True)
class Case(NetworkCase):
    PART = "vae_decoder"

    height: int = 64  # of the latents: 512 pixels
    width: int = 64

    def feeds(self) -> dict[str, np.ndarray]:
        return {"latent_sample": normal(3, (1, 4, self.height, self.width))}
