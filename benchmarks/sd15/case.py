"""What a task of one network gives its competitors."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from benchmarks.timing import NotInstalledError

MODEL = "TEXTOPIA_BENCHMARK_MODEL"
# Beside a graph: what it gives in float32, where that cannot be computed on the machine measured.
REFERENCE = "reference.npy"
# Beside a float16 graph: the same with weights that are cast to float32, for export_openvino.py.
WIDENED = "model_widened.onnx"


@dataclass(frozen=True)
class NetworkCase(ABC):
    """One network of the directory and its inputs, which every process makes the same."""

    PART: ClassVar[str]

    directory: Path
    threads: int

    @property
    def graph(self) -> Path:
        return graph_of(self.directory, self.PART)

    @property
    def stored_result(self) -> np.ndarray | None:
        """What the network gives in float32, where the export has left it."""
        path = self.graph.with_name(REFERENCE)
        return np.load(path) if path.is_file() else None

    @abstractmethod
    def feeds(self) -> dict[str, np.ndarray]:
        """Inputs of the exported graph."""


def graph_of(directory: Path, part: str) -> Path:
    return directory / part / "model.onnx"


def find_model() -> Path:
    """The directory that --model or the environment names."""
    path = os.environ.get(MODEL)
    if not path or not graph_of(Path(path), "unet").is_file():
        raise NotInstalledError(
            f"no model: make one with benchmarks/export_sd15.py, name it with --model or {MODEL}"
        )
    return Path(path)


def normal(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)
