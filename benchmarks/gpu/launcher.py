"""Launches the compiled kernels on a GPU through the core, with the arguments of the checks in
kernels/*.py."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from kernels import manifest
from kernels.variant import Variant

from textopia_fast import _core, devices

_FORMATS = {"i32": "i", "u32": "I", "fp32": "f", "i64": "q", "u64": "Q", "fp64": "d"}


class Launcher:
    """Calls like kernels/interpreted.launch; remembers what the last launch took.

    Attributes:
        milliseconds: Per launch, of the last call.
    """

    def __init__(self, gpu: _core.Gpu, *, repeats: int = 1) -> None:
        self._gpu = gpu
        self._repeats = repeats
        self.milliseconds = float("nan")

    def __call__(
        self, variant: Variant, grid: tuple[int, int, int], arguments: dict[str, Any]
    ) -> None:
        packed: list[Any] = []
        for name, kind in variant.types().items():
            kinds = kind if isinstance(kind, tuple) else (kind,)
            values = arguments[name] if isinstance(kind, tuple) else (arguments[name],)
            packed += [_pack(k, value) for k, value in zip(kinds, values, strict=True)]
        self.milliseconds = self._gpu.run_kernel(variant.name, grid, packed, repeats=self._repeats)


def _pack(kind: str, value: Any) -> Any:
    if kind.startswith("*"):
        return np.ascontiguousarray(value) if not value.flags.writeable else value
    return struct.pack(_FORMATS[kind], value)


def open_all(folder: Path | None, ordinal: int = 0) -> tuple[_core.Gpu, int]:
    """The GPU with every kernel of the archive for it, and its architecture."""
    driver = _core.CudaDriver()
    facts = driver.devices[ordinal]
    if folder is None:
        path = devices.find_archive(facts["architecture"], facts["name"])
    else:
        path = folder / f"sm_{facts['architecture']}.zip"
    return _core.Gpu(driver, ordinal, list(devices.read_archive(path))), facts["architecture"]


def as_compiled(variant: Variant, architecture: int) -> Variant:
    """With the constants that it was compiled with for this architecture."""
    constants, warps, stages = manifest.launch_shape(variant, architecture)
    return replace(variant, constants=constants, warps=warps, stages=stages)
