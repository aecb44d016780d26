"""The fake driver of fake_cuda.c: built once per test run, controlled from here."""

from __future__ import annotations

import ctypes
import functools
import gc
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from textopia_fast import _core

SOURCE = Path(__file__).with_suffix(".c")

# Bytes of each parameter, as kernels/build.py records them, for the kernels that the fake knows.
PARAMETERS = {
    "combine": [8] * 8
    + [4] * 8
    + [8] * 8
    + [4] * 24
    + [8, 4, 8, 8, 8, 4, 8, 4, 4, 8, 8, 4, 8]
    + [4] * 5,
    "langevin_step": [8, 8, 8, 8, 8, 8, 8, 4, 8, 4, 4, 4],
    "rescale": [8, 8, 4, 8, 8, 4, 4, 4],
    "threshold": [8, 8, 4, 4, 4, 4],
    "clamp": [8, 8, 4, 4, 4],
    "blend": [8, 8, 8, 8, 8, 4, 4, 4],
    "group_norm": [8] * 6 + [4] * 6,
    "layer_norm": [8] * 4 + [4] * 2,
    "geglu": [8, 8, 4],
    "attention": [8] * 5 + [4] * 14,
}

DTYPES = ("fp16", "bf16", "fp32")
# Head width: rows and keys of a tile, as in kernels/attention.py.
_TILES = dict.fromkeys((16, 24, 32, 40, 64, 80, 160), (128, 64)) | {512: (64, 32)}


@functools.cache
def library_path() -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    target = Path(tempfile.mkdtemp(prefix="fake_cuda_")) / "libcuda_fake.so"
    flags = ["-O2", "-ffp-contract=off", "-shared", "-fPIC"]
    subprocess.run([compiler, *flags, str(SOURCE), "-o", str(target), "-lm"], check=True)
    return target


class FakeCuda:
    """A freshly reset fake driver."""

    def __init__(self) -> None:
        self.path = str(library_path())
        self._library = ctypes.CDLL(self.path)
        self._library.fake_log.restype = ctypes.c_char_p
        self._library.fake_give.restype = ctypes.c_uint64
        self._library.fake_give.argtypes = [ctypes.c_int, ctypes.c_size_t]
        self._library.fake_take_back.argtypes = [ctypes.c_uint64]
        if self.live():  # an earlier test's, released before the counters start
            gc.collect()
        self.reset()

    def reset(self) -> None:
        self._library.fake_reset()

    def driver(self) -> _core.CudaDriver:
        return _core.CudaDriver(self.path)

    def gpu(
        self,
        ordinal: int = 0,
        *,
        emulated: bool = True,
        kernels: list[_core.KernelImage] | None = None,
    ) -> _core.Gpu:
        """With every kernel, unless `kernels` are given."""
        given = images() if kernels is None else kernels
        return _core.Gpu(self.driver(), ordinal, given, is_emulated=emulated)

    def give(self, device: int, size: int) -> int:
        """The address of that many bytes of another library's on a device."""
        return self._library.fake_give(device, size)

    def take_back(self, address: int) -> None:
        self._library.fake_take_back(address)

    def set_device(self, *, count: int = 1, version: int = 12040, architecture: int = 90) -> None:
        self._library.fake_device(count, version, architecture)

    def fail(self, name: str, after: int, result: int) -> None:
        """Call number `after` of that name ("*": of any) answers `result`."""
        self._library.fake_fail(name.encode(), after, result)

    def heal(self) -> None:
        """Forgets a sticky error."""
        self._library.fake_heal()

    def calls(self) -> list[str]:
        """Lines "name details" in order."""
        return self._library.fake_log().decode().splitlines()

    def names(self) -> list[str]:
        return [line.split(" ")[0] for line in self.calls()]

    def clear(self) -> None:
        self._library.fake_clear_log()

    def live(self) -> dict[str, int]:
        kinds = ("memory", "pinned", "stream", "event", "module")
        found = {kind: self._library.fake_live(kind.encode()) for kind in kinds}
        found["context"] = self._library.fake_retained()
        found["pushed"] = self._library.fake_context_depth()
        return {kind: count for kind, count in found.items() if count}


def images() -> list[_core.KernelImage]:
    """Every kernel of the loop and of the graphs, as text that the fake understands."""
    return [image(name) for name in kernel_names()] + graph_images()


def graph_images() -> list[_core.KernelImage]:
    return [image(name, **facts) for name, facts in graph_kernels().items()]


def kernel_names() -> list[str]:
    """Every kernel that the loop may ask for."""
    names = ["clamp.fp32.any", "blend.fp32.any", "threshold.fp32.any"]
    names += [f"langevin_step.fp32.{shape}" for shape in ("noise", "given")]
    for dtype in DTYPES:
        names.append(f"rescale.{dtype}.any")
        for shape in ("even", "any"):
            names += [f"combine.{dtype}.{shape}", f"combine.{dtype}.{shape}_noise"]
    return names


def graph_kernels() -> dict[str, dict[str, int]]:
    """Every kernel that a node may ask for, with its constants."""
    found: dict[str, dict[str, int]] = {}
    for dtype in DTYPES:
        for width in (4, 8, 16, 32, 64, 128):
            tile = {"ROWS": 4096 // width, "WIDTH": width, "CHUNKS": 64}
            for role, flags in (
                ("moments", {}),
                ("apply", {"APPLY": 1}),
                ("silu", {"APPLY": 1, "SILU": 1}),
            ):
                found[f"group_norm.{dtype}.w{width}_{role}"] = tile | flags
                found[f"group_norm.{dtype}.w{width}_{role}_bias"] = tile | flags | {"BIAS": 1}
        for shape in ("w512_even", "w1024_even", "w2048_even", "w2048_any"):
            found[f"layer_norm.{dtype}.{shape}"] = {"WIDTH": int(shape[1:].split("_")[0])}
        found[f"geglu.{dtype}.even"] = found[f"geglu.{dtype}.any"] = {"BLOCK": 1024}
        for width, (rows, keys) in _TILES.items():
            tile = {"WIDTH": width, "ROWS": rows, "KEYS": keys, "CAUSAL": 0, "MASK": 0, "SHORT": 0}
            found[f"attention.{dtype}.d{width}"] = tile
            if width <= 160:
                short = {"ROWS": 64, "KEYS": 128, "SHORT": 1}
                found[f"attention.{dtype}.d{width}_short"] = tile | short
            if width in (32, 64):
                found[f"attention.{dtype}.d{width}_mask"] = tile | {"MASK": 1}
            if width == 64:
                found[f"attention.{dtype}.d{width}_causal"] = tile | {"CAUSAL": 1}
    return found


def image(
    name: str, *, warps: int = 2, shared_bytes: int = 0, **constants: int
) -> _core.KernelImage:
    """A kernel as the fake understands it; the loop's work on ranges of 1024 elements."""
    kernel = name.split(".")[0]
    constants = constants or {"BLOCK": 1024}
    facts = " ".join(f"{constant}={value}" for constant, value in constants.items())
    cubin = f"cubin {name.replace('.', ' ').replace('_noise', ' noise')}|{facts}"
    return _core.KernelImage(
        name,
        kernel,
        cubin.encode() + b"\0",
        PARAMETERS[kernel],
        warps=warps,
        shared_bytes=shared_bytes,
        constants=constants,
    )
