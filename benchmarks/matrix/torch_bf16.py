"""PyTorch in bfloat16, images channels-last, as a pipeline under `torch.inference_mode` runs."""

from __future__ import annotations

import time

import numpy as np

from benchmarks.matrix.layers import Layer, Prepared
from benchmarks.timing import require


def prepare(layer: Layer, data: dict[str, np.ndarray], threads: int) -> Prepared:
    require("torch")
    import torch
    import torch.nn.functional as functional

    torch.set_num_threads(threads)
    tensors = {name: torch.from_numpy(value).bfloat16() for name, value in data.items()}
    if layer.kind in ("conv", "upsample"):
        for name in ("x", "weight"):
            tensors[name] = tensors[name].contiguous(memory_format=torch.channels_last)

    def once() -> torch.Tensor:
        if layer.kind == "attention":
            heads = [tensors[n].unflatten(-1, (layer.heads, -1)).transpose(1, 2) for n in "qkv"]
            mixed = functional.scaled_dot_product_attention(*heads)
            return mixed.transpose(1, 2).reshape(layer.batch, layer.sizes[0], -1)
        x, weight, bias = tensors["x"], tensors["weight"], tensors["bias"]
        if layer.kind == "upsample":
            large = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            return functional.conv2d(large, weight, bias, padding=1)
        if layer.kind == "conv":
            return functional.conv2d(x, weight, bias, stride=layer.sizes[3], padding=1)
        y = functional.linear(x, weight, bias)
        if layer.kind == "linear":
            return y + tensors["residual"]
        value, gate = y.chunk(2, dim=-1)
        return value * functional.gelu(gate)

    def seconds(count: int) -> float:
        with torch.inference_mode():
            begin = time.perf_counter()
            for _ in range(count):
                once()
            return time.perf_counter() - begin

    def result() -> np.ndarray:
        with torch.inference_mode():
            return once().float().numpy()

    return Prepared(seconds, result)
