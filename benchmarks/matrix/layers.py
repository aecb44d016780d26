"""The matrix layers of Stable Diffusion 1.5 at 512 x 512 pixels.

A denoising step with guidance (two rows) and the VAE decoder of one picture; every distinct shape
once, with how often it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

UNET, DECODER = "U-Net step", "VAE decoder"


@dataclass(frozen=True)
class Layer:
    """One shape of a layer.

    Attributes:
        kind: "conv" (3 x 3), "upsample" (an image enlarged twice by repetition, then 3 x 3),
            "linear" (1 x 1 convolutions too), "geglu" or "attention".
        sizes: conv: side, channels in and out, stride. upsample: side before, channels in and out.
            linear, geglu: rows, channels in and out (of the product). attention: queries, keys,
            head width.
        count: How often the network runs it.
        network: UNET or DECODER.
    """

    kind: str
    sizes: tuple[int, ...]
    count: int
    network: str = UNET

    @property
    def batch(self) -> int:
        return 2 if self.network == UNET else 1

    @property
    def heads(self) -> int:
        return 8 if self.network == UNET else 1

    @property
    def name(self) -> str:
        if self.kind == "attention":
            queries, keys, width = self.sizes
            return f"attention {queries} x {keys}, width {width}"
        first, channels, columns, *stride = self.sizes
        where = f"{first} rows" if self.kind in ("linear", "geglu") else f"{first}x{first}"
        return f"{self.kind} {where}, {channels} to {columns}" + (" / 2" if stride == [2] else "")

    @property
    def out_side(self) -> int:
        if self.kind == "upsample":
            return 2 * self.sizes[0]
        return self.sizes[0] // self.sizes[3]

    @property
    def flops(self) -> float:
        """That the result needs. An enlarged image needs 4 of the 9 products of its kernel."""
        if self.kind == "attention":
            queries, keys, width = self.sizes
            return 4.0 * self.batch * self.heads * queries * keys * width
        first, channels, columns = self.sizes[:3]
        if self.kind in ("linear", "geglu"):
            return 2.0 * first * channels * columns
        taps = 4 if self.kind == "upsample" else 9
        return 2.0 * self.batch * self.out_side**2 * taps * channels * columns

    @property
    def bytes(self) -> float:
        """Inputs, weights, residual and output in bfloat16, each once."""
        first, channels, columns = self.sizes[:3]
        if self.kind == "attention":
            queries, keys, width = self.sizes
            return 2.0 * self.batch * self.heads * width * (2 * queries + 2 * keys)
        if self.kind == "linear":
            return 2.0 * (first * channels + channels * columns + 2 * first * columns)
        if self.kind == "geglu":
            return 2.0 * (first * channels + channels * columns + first * columns // 2)
        taps = 16 if self.kind == "upsample" else 9
        pixels = first**2 * channels + self.out_side**2 * columns
        return 2.0 * (self.batch * pixels + taps * channels * columns)


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
        return {name: normal(layer.batch, n, layer.heads * width) for name, n in lengths.items()}
    first, channels, columns = layer.sizes[:3]
    bias = normal(columns)
    if layer.kind in ("conv", "upsample"):
        weight = normal(columns, channels, 3, 3, scale=(9 * channels) ** -0.5)
        return {"x": normal(layer.batch, channels, first, first), "weight": weight, "bias": bias}
    weight = normal(columns, channels, scale=channels**-0.5)
    data = {"x": normal(1, first, channels), "weight": weight, "bias": bias}
    if layer.kind == "linear":
        data["residual"] = normal(1, first, columns)
    return data


LAYERS = (
    Layer("conv", (64, 4, 320, 1), 1),
    Layer("conv", (64, 320, 320, 1), 7),
    Layer("conv", (64, 640, 320, 1), 2),
    Layer("conv", (64, 960, 320, 1), 1),
    Layer("conv", (64, 320, 4, 1), 1),
    Layer("conv", (64, 320, 320, 2), 1),
    Layer("conv", (32, 640, 640, 1), 6),
    Layer("conv", (32, 320, 640, 1), 1),
    Layer("conv", (32, 960, 640, 1), 1),
    Layer("conv", (32, 1280, 640, 1), 1),
    Layer("conv", (32, 1920, 640, 1), 1),
    Layer("conv", (32, 640, 640, 2), 1),
    Layer("conv", (16, 640, 1280, 1), 1),
    Layer("conv", (16, 1280, 1280, 1), 6),
    Layer("conv", (16, 1920, 1280, 1), 1),
    Layer("conv", (16, 2560, 1280, 1), 2),
    Layer("conv", (16, 1280, 1280, 2), 1),
    Layer("conv", (8, 1280, 1280, 1), 11),
    Layer("conv", (8, 2560, 1280, 1), 3),
    Layer("upsample", (32, 640, 640), 1),
    Layer("upsample", (16, 1280, 1280), 1),
    Layer("upsample", (8, 1280, 1280), 1),
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
    Layer("conv", (64, 4, 512, 1), 1, DECODER),
    Layer("conv", (64, 512, 512, 1), 10, DECODER),
    Layer("conv", (128, 512, 512, 1), 6, DECODER),
    Layer("conv", (256, 512, 256, 1), 1, DECODER),
    Layer("conv", (256, 256, 256, 1), 5, DECODER),
    Layer("conv", (512, 256, 128, 1), 1, DECODER),
    Layer("conv", (512, 128, 128, 1), 5, DECODER),
    Layer("conv", (512, 128, 3, 1), 1, DECODER),
    Layer("upsample", (64, 512, 512), 1, DECODER),
    Layer("upsample", (128, 512, 512), 1, DECODER),
    Layer("upsample", (256, 256, 256), 1, DECODER),
    Layer("linear", (65536, 512, 256), 1, DECODER),
    Layer("linear", (262144, 256, 128), 1, DECODER),
    Layer("linear", (4096, 512, 512), 4, DECODER),
    Layer("attention", (4096, 4096, 512), 1, DECODER),
)
