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
}


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
        gc.collect()  # what an earlier test left behind is released before the counters start
        self.path = str(library_path())
        self._library = ctypes.CDLL(self.path)
        self._library.fake_log.restype = ctypes.c_char_p
        self._library.fake_give.restype = ctypes.c_uint64
        self._library.fake_give.argtypes = [ctypes.c_int, ctypes.c_size_t]
        self._library.fake_take_back.argtypes = [ctypes.c_uint64]
        self.reset()

    def reset(self) -> None:
        self._library.fake_reset()

    def driver(self) -> _core.CudaDriver:
        return _core.CudaDriver(self.path)

    def gpu(self, ordinal: int = 0, *, emulated: bool = True) -> _core.Gpu:
        return _core.Gpu(self.driver(), ordinal, images(), is_emulated=emulated)

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
    """Every kernel of the loop, as text that the fake understands."""
    return [image(name) for name in kernel_names()]


def kernel_names() -> list[str]:
    """Every kernel that the loop may ask for."""
    names = ["clamp.fp32.any", "blend.fp32.any", "threshold.fp32.any"]
    names += [f"langevin_step.fp32.{shape}" for shape in ("noise", "given")]
    for dtype in ("fp32", "fp16"):
        names.append(f"rescale.{dtype}.any")
        for shape in ("even", "any"):
            names += [f"combine.{dtype}.{shape}", f"combine.{dtype}.{shape}_noise"]
    return names


def image(name: str, **facts: int) -> _core.KernelImage:
    kernel = name.split(".")[0]
    text = "cubin " + name.replace(".", " ").replace("_noise", " noise")
    given = {"warps": 2, "shared_bytes": 0, "elements": 1024} | facts
    cubin = text.encode() + b"\0"
    return _core.KernelImage(name, kernel, cubin, PARAMETERS[kernel], **given)
