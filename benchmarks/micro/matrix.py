"""The layers of a Stable Diffusion 1.5 denoising step, and the most that a core can multiply.

512 x 512 pixels, batch 2 (guidance): 1.6 TFLOP. `python -m benchmarks.micro.matrix` prints the
peak.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from textopia_fast import _core


@dataclass(frozen=True)
class Layer:
    """One shape of a layer.

    Attributes:
        kind: "conv" (3 x 3), "linear" (1 x 1 convolutions too), "geglu" or "attention".
        sizes: conv: side, channels in and out, stride. linear, geglu: rows, channels in and out
            (of the product). attention: queries, keys, head width.
        count: How often a step runs it.
    """

    kind: str
    sizes: tuple[int, ...]
    count: int

    @property
    def name(self) -> str:
        if self.kind == "attention":
            queries, keys, width = self.sizes
            return f"attention {queries} x {keys}, width {width}"
        first, channels, columns, *stride = self.sizes
        where = f"{first}x{first}" if self.kind == "conv" else f"{first} rows"
        return f"{self.kind} {where}, {channels} to {columns}" + (" / 2" if stride == [2] else "")

    @property
    def flops(self) -> float:
        """Of the published network: no padding, no savings."""
        if self.kind == "attention":
            queries, keys, width = self.sizes
            return 4.0 * BATCH * HEADS * queries * keys * width
        if self.kind == "conv":
            side, channels, columns, stride = self.sizes
            return 2.0 * BATCH * (side // stride) ** 2 * 9 * channels * columns
        rows, channels, columns = self.sizes
        return 2.0 * rows * channels * columns


BATCH, HEADS = 2, 8


@dataclass(frozen=True)
class Prepared:
    """A layer ready to run.

    Attributes:
        seconds: Of a number of runs over the same data.
        result: The output as float32, images [B, C, H, W].
    """

    seconds: Callable[[int], float]
    result: Callable[[], np.ndarray]


def make_data(layer: Layer) -> dict[str, np.ndarray]:
    """float32 arrays as the network has them: images [B, C, H, W], weights [out, in, ...]."""
    rng = np.random.default_rng(0)

    def normal(*shape: int, scale: float = 1.0) -> np.ndarray:
        return rng.standard_normal(shape, np.float32) * np.float32(scale)

    if layer.kind == "attention":
        queries, keys, width = layer.sizes
        lengths = {"q": queries, "k": keys, "v": keys}
        return {name: normal(BATCH, n, HEADS * width) for name, n in lengths.items()}
    first, channels, columns = layer.sizes[:3]
    bias = normal(columns)
    if layer.kind == "conv":
        weight = normal(columns, channels, 3, 3, scale=(9 * channels) ** -0.5)
        return {"x": normal(BATCH, channels, first, first), "weight": weight, "bias": bias}
    weight = normal(columns, channels, scale=channels**-0.5)
    data = {"x": normal(1, first, channels), "weight": weight, "bias": bias}
    if layer.kind == "linear":
        data["residual"] = normal(1, first, columns)
    return data


LAYERS = (
    Layer("conv", (64, 320, 320, 1), 7),
    Layer("conv", (64, 640, 320, 1), 2),
    Layer("conv", (64, 960, 320, 1), 1),
    Layer("conv", (64, 640, 640, 1), 1),
    Layer("conv", (64, 320, 320, 2), 1),
    Layer("conv", (32, 640, 640, 1), 6),
    Layer("conv", (32, 320, 640, 1), 1),
    Layer("conv", (32, 960, 640, 1), 1),
    Layer("conv", (32, 1280, 640, 1), 1),
    Layer("conv", (32, 1920, 640, 1), 1),
    Layer("conv", (32, 1280, 1280, 1), 1),
    Layer("conv", (32, 640, 640, 2), 1),
    Layer("conv", (16, 640, 1280, 1), 1),
    Layer("conv", (16, 1280, 1280, 1), 7),
    Layer("conv", (16, 1920, 1280, 1), 1),
    Layer("conv", (16, 2560, 1280, 1), 2),
    Layer("conv", (16, 1280, 1280, 2), 1),
    Layer("conv", (8, 1280, 1280, 1), 11),
    Layer("conv", (8, 2560, 1280, 1), 3),
    Layer("linear", (8192, 320, 320), 25),
    Layer("linear", (8192, 320, 960), 5),
    Layer("linear", (8192, 640, 320), 2),
    Layer("linear", (8192, 960, 320), 1),
    Layer("linear", (8192, 1280, 320), 5),
    Layer("linear", (2048, 640, 640), 25),
    Layer("linear", (2048, 640, 1920), 5),
    Layer("linear", (2048, 2560, 640), 5),
    Layer("linear", (512, 1280, 1280), 25),
    Layer("linear", (512, 1280, 3840), 5),
    Layer("linear", (512, 5120, 1280), 5),
    Layer("linear", (512, 2560, 1280), 2),
    Layer("linear", (128, 1280, 1280), 5),
    Layer("linear", (128, 5120, 1280), 1),
    Layer("linear", (128, 2560, 1280), 3),
    Layer("geglu", (8192, 320, 2560), 5),
    Layer("geglu", (2048, 640, 5120), 5),
    Layer("geglu", (512, 1280, 10240), 5),
    Layer("geglu", (128, 1280, 10240), 1),
    Layer("attention", (4096, 4096, 40), 5),
    Layer("attention", (1024, 1024, 80), 5),
    Layer("attention", (256, 256, 160), 5),
    Layer("attention", (4096, 77, 40), 5),
    Layer("attention", (1024, 77, 80), 5),
    Layer("attention", (256, 77, 160), 5),
)


def peak_gflops(unit: str) -> float | None:
    """What one core multiplies out of its nearest cache, in GFLOP/s; None without a compiler."""
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None or unit == "scalar":
        return None
    source = Path(__file__).with_name("matrix_peak.cc")
    flags = "-std=c++20 -O3 -mavx512f -mavx512bw -mavx512bf16"
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "matrix_peak")
        subprocess.run([compiler, *flags.split(), str(source), "-o", program], check=True)
        return float(subprocess.run([program, unit], check=True, capture_output=True).stdout)


def main() -> None:
    unit = _core.active_matrix_unit()
    print(f"{unit}: {peak_gflops(unit)} GFLOP/s per core")


if __name__ == "__main__":
    main()
