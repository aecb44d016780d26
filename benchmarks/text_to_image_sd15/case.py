"""What both pipelines are given."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.sd15.case import normal

STEPS = "TEXTOPIA_BENCHMARK_STEPS"
PIXELS = 512
GUIDANCE = 7.5
PROMPT = "a red circle on a blue background"


def find_steps() -> int:
    """20, or what --steps says."""
    return int(os.environ.get(STEPS, "20"))


@dataclass(frozen=True)
class Case:
    directory: Path
    threads: int
    steps: int

    def latents(self) -> np.ndarray:
        """The start, unit noise, float32 [1, 4, H, W]: both make the same picture of it."""
        return normal(5, (1, 4, PIXELS // 8, PIXELS // 8))
