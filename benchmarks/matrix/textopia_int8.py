"""Our fused operators with weights and products in int8; activations come and go in bfloat16."""

from __future__ import annotations

import numpy as np

from benchmarks.matrix import textopia_bf16
from benchmarks.micro.matrix import Layer, Prepared
from benchmarks.timing import NotInstalledError
from textopia_fast import _core


def prepare(layer: Layer, data: dict[str, np.ndarray], threads: int) -> Prepared:
    if _core.int8_unit() == "scalar":
        raise NotInstalledError("needs AMX INT8 or AVX512_VNNI")
    if layer.kind == "attention":
        raise NotInstalledError("attention stays in bfloat16")
    return textopia_bf16.prepare(layer, data, threads, int8=True)
