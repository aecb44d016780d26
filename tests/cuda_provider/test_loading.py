"""Loading the provider through our own search, with libraries missing and with all of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cuda_provider import driver_in
from textopia_fast import _ort, devices

ROOT = Path(__file__).parents[2]

# Opens the driver, as much of CUDA as is asked for, and a session; prints what came of it.
WORKER = """
import ctypes, sys
from textopia_fast import _core, _ort, devices
from textopia_fast.errors import TextopiaError
from tests.cuda_provider.graphs import add_then_relu, convolution
from tests.support.fake_cuda import images
driver, left_out, *feeds = sys.argv[1:]
gpu = _core.Gpu(_core.CudaDriver(driver), 0, images())
if left_out:
    devices._LIBRARIES = tuple(name for name in devices._LIBRARIES if name != left_out)
    devices.preload_libraries()
import numpy as np
try:
    conv = _ort.create_session(convolution(), label="conv", gpu=gpu)
    conv.run({"x": np.ones((1, 4, 8, 8), np.float32)})
    print("ran")
except TextopiaError as error:
    print(type(error).__name__, error)
"""


def outcome(ort_folder: Path, libraries: Path, left_out: str) -> str:
    """`left_out`: a library of CUDA; all of them where empty, none where "nothing"."""
    path = [ort_folder, ROOT, Path(_ort.__file__).parents[1]]
    path += [libraries] if left_out else []
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(driver_in(libraries)), left_out],
        env={"PYTHONPATH": ":".join(map(str, path)), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_the_wheel_beside_us_is_the_one_that_is_opened(fake, ort_folder):
    info = _ort.runtime_info()
    assert Path(info["path"]).parent == ort_folder / "onnxruntime" / "capi"
    assert "CUDAExecutionProvider" in info["providers"]
    assert {"libcudart.so", "libcublas.so", "libcudnn.so"} <= set(devices.preload_libraries())


def test_everything_is_there(ort_folder, libraries):
    assert outcome(ort_folder, libraries, "nothing") == "ran\n"


@pytest.mark.parametrize(
    ("left_out", "named"),
    [
        ("", "libcublasLt.so.13"),  # no library of CUDA at all: the first that the linker misses
        ("libcurand.so", "libcurand.so.10"),
        ("libcublas.so", "libcublas.so.13"),
        ("libcudnn.so", "cuDNN is unavailable"),  # opened by the first convolution
    ],
)
def test_a_missing_library_is_named(ort_folder, libraries, left_out, named):
    printed = outcome(ort_folder, libraries, left_out)
    assert printed.startswith("ConfigurationError conv: ")
    assert named in printed
    assert "pip install textopia-fast[cuda]" in printed
    assert "[ONNXRuntimeError]" not in printed
