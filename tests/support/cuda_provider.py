"""ONNX Runtime's own CUDA provider on the fake CUDA of fake_cudart: every call recorded."""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.support.fake_cuda import FakeCuda
from tests.support.fake_cudart.build import build
from textopia_fast import _core, _ort, devices

# Names the folder that `pip install --no-deps --target FOLDER onnxruntime-gpu` filled.
VARIABLE = "TEXTOPIA_TEST_ORT_GPU"


def installed_folder() -> Path:
    """The folder; skips the test where there is none."""
    folder = os.environ.get(VARIABLE)
    if not folder:
        pytest.skip(f"needs onnxruntime-gpu in the folder that {VARIABLE} names")
    if not (
        provider := Path(folder, "onnxruntime/capi/libonnxruntime_providers_cuda.so")
    ).is_file():
        raise FileNotFoundError(provider)
    return Path(folder)


def build_libraries(target: Path) -> Path:
    """A folder for sys.path that holds the fake libraries as NVIDIA's wheels lay them out."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or shutil.which("nm") is None:
        pytest.skip("needs a C compiler and nm")
    provider = installed_folder() / "onnxruntime/capi/libonnxruntime_providers_cuda.so"
    build(provider, compiler, target)
    return target


def driver_in(libraries: Path) -> Path:
    return libraries / "nvidia/fake/lib/libcuda.so.1"


class ProviderOnFake(FakeCuda):
    """The fake driver with the runtime above it, in this process. Freshly reset."""

    def __init__(self, libraries: Path) -> None:
        self.path = str(driver_in(libraries))
        # For all to see, as the driver is on a machine with a GPU.
        self._library = ctypes.CDLL(self.path, mode=ctypes.RTLD_GLOBAL)
        self._library.fake_log.restype = ctypes.c_char_p
        for folder in (installed_folder(), libraries):
            if str(folder) not in sys.path:
                sys.path.insert(0, str(folder))
        devices.preload_libraries()
        self._runtime = ctypes.CDLL("libcudart.so.13")
        self.reset()
        if not _ort.runtime_info()["path"].startswith(str(installed_folder())):
            pytest.skip("needs a process of its own: run pytest tests/cuda_provider alone")

    def reset(self) -> None:
        gc.collect()  # what an earlier test left behind is released before the counters start
        self._library.fake_reset()
        self._runtime.fake_runtime_reset()

    def gpu(
        self,
        *,
        emulated: bool = False,
        ordinal: int = 0,
        kernels: list[_core.KernelImage] | None = None,
    ) -> _core.Gpu:
        return super().gpu(emulated=emulated, ordinal=ordinal, kernels=kernels)

    def fill_memory(self, byte: int) -> None:
        """New memory holds that, instead of NaN."""
        self._library.fake_fill(byte)

    def set_largest_allocation(self, bytes_: int) -> None:
        self._runtime.fake_largest(ctypes.c_size_t(bytes_))

    def runtime_calls(self) -> list[str]:
        """What the provider called, without what that called of the driver."""
        return [line for line in self.calls() if line.startswith(("cuda", "cublas", "cudnn"))]

    def count(self, *names: str) -> int:
        return sum(line.split(" ")[0] in names for line in self.calls())


def streams_of(calls: list[str]) -> set[str]:
    """The streams that kernels, copies and fills of the provider were put on."""
    found = set()
    for line in calls:
        words = line.split(" ")
        if words[0] in ("cudaLaunchKernel", "cudnnBackendExecute", "cudaGraphLaunch"):
            found.add(words[1])
        elif words[0] in ("cudaMemcpyAsync", "cudaMemsetAsync"):
            found.add(words[-1])
    return found
