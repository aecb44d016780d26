"""What every competitor of this task is given: one step of one picture, with guidance."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.timing import NotInstalledError

MODEL = "TEXTOPIA_BENCHMARK_MODEL"
TIMESTEP = 500


@dataclass(frozen=True)
class Case:
    directory: Path
    threads: int
    height: int = 64  # of the latents: 512 pixels
    width: int = 64
    tokens: int = 77
    text_width: int = 768

    @property
    def graph(self) -> Path:
        return self.directory / "unet" / "model.onnx"

    def sample(self) -> np.ndarray:
        """One latent, float32 [1, 4, H, W]; both halves of guidance see the same."""
        return _normal(1, (1, 4, self.height, self.width))

    def text(self) -> np.ndarray:
        """Embeddings of the negative and the positive prompt, float32 [2, T, D]."""
        return _normal(2, (2, self.tokens, self.text_width))

    def feeds(self) -> dict[str, np.ndarray]:
        """Inputs of the exported graph."""
        return {
            "sample": np.repeat(self.sample(), 2, axis=0),
            "timestep": np.array([TIMESTEP], np.int64),
            "encoder_hidden_states": self.text(),
        }


def find_model() -> Path:
    """The directory that --model or the environment names."""
    path = os.environ.get(MODEL)
    if not path or not Path(path, "unet", "model.onnx").is_file():
        raise NotInstalledError(
            f"no model: make one with benchmarks/export_sd15.py, name it with --model or {MODEL}"
        )
    return Path(path)


def _normal(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)
