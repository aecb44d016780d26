"""The body of our compiled U-Net, as in `unet_step`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.unet_step.case import Case
from benchmarks.unet_step.ours_bf16 import open_step

NAME = "U-Net step, batch 2"


def open_network(directory: Path, threads: int) -> Callable[[np.ndarray], np.ndarray]:
    """A function of a latent, float32 [1, 4, H, W]."""
    return open_step(Case(directory, threads))
