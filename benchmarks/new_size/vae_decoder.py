"""Our compiled VAE decoder, as in `vae_decode`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.sd15.ours_bf16 import open_engine

NAME = "VAE decoder"


def open_network(directory: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function of a latent, float32 [1, 4, H, W]."""
    session = open_engine(directory, threads).open("vae_decoder")
    output = session.outputs[0].name
    return lambda latents: session.run({"latent_sample": latents})[output]
