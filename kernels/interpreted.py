"""Launches kernels in Triton's interpreter, on the CPU. Set TRITON_INTERPRET=1 before anything of
this folder is imported. bfloat16 is left out: the interpreter's dot product of it is wrong."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch

from .variant import Variant


def launch(variant: Variant, grid: tuple[int, int, int], arguments: dict[str, Any]) -> None:
    """Runs the kernel over NumPy arrays, which it changes in place."""
    module = importlib.import_module(f".{variant.kernel}", __package__)
    function = getattr(module, variant.kernel)
    # torch has few operations on unsigned integers, but shares their memory.
    given = {name: _shared(value) for name, value in arguments.items()}
    with np.errstate(over="ignore"):  # exp2 may well end in infinity
        function[grid](**given, **variant.constants)


def _shared(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_shared(item) for item in value)
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    return value
