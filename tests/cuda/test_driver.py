"""The driver layer against the fake driver: calls, releases, and every call failing in turn."""

from __future__ import annotations

import os

import numpy as np
import pytest

from tests.support.fake_cuda import FakeCuda, image
from textopia_fast import _core
from textopia_fast.errors import (
    ConfigurationError,
    DeviceLostError,
    ExecutionError,
    ForkedProcessError,
    InternalError,
    OutOfMemoryError,
    TextopiaError,
)

CLAMP = "clamp.fp32.any"


@pytest.fixture
def fake() -> FakeCuda:
    return FakeCuda()


def clamp_arguments(x: np.ndarray, target: np.ndarray) -> list[object]:
    numbers = (np.float32(-1), np.float32(1), np.int32(x.size))
    return [x, target, *(number.tobytes() for number in numbers)]


def run_clamp(gpu: _core.Gpu, repeats: int = 1) -> np.ndarray:
    x = np.linspace(-2, 2, 7, dtype=np.float32)
    target = np.zeros_like(x)
    gpu.run_kernel(CLAMP, (1, 1, 1), clamp_arguments(x, target), repeats=repeats)
    np.testing.assert_array_equal(target, np.clip(x, -1, 1))
    return target


def test_tells_what_the_driver_and_its_devices_are(fake):
    fake.set_device(count=2, version=13010, architecture=120)
    driver = fake.driver()
    assert driver.version == 13010
    assert driver.devices == [
        {
            "name": f"Fake {i}",
            "architecture": 120,
            "multiprocessors": 132,
            "memory_bytes": 1 << 34,
        }
        for i in range(2)
    ]
    assert _core.Gpu(driver, 1, []).ordinal == 1
    assert "cuDevicePrimaryCtxRetain 41" in fake.calls()


def test_a_launch_is_what_triton_expects(fake):
    gpu = _core.Gpu(fake.driver(), 0, [image(CLAMP, warps=8, shared_bytes=50000)])
    run_clamp(gpu)
    calls = fake.calls()
    # 8 warps of 32; the fake refuses unless two null scratch pointers follow the parameters.
    assert "cuLaunchKernel clamp fp32 any 1,1,1 256,1,1 50000" in calls
    assert "cuFuncSetAttribute 8 50000" in calls  # more shared memory than 48 KiB is asked for
    assert calls.index("cuFuncSetAttribute 8 50000") < calls.index(
        "cuLaunchKernel clamp fp32 any 1,1,1 256,1,1 50000"
    )


def test_a_kernel_is_loaded_once(fake):
    gpu = fake.gpu()
    for _ in range(3):
        run_clamp(gpu)
    assert fake.names().count("cuModuleLoadData") == 1


def test_repeats_are_timed_without_the_first(fake):
    gpu = fake.gpu()
    fake.clear()
    run_clamp(gpu, repeats=5)
    names = [name for name in fake.names() if name in ("cuLaunchKernel", "cuEventRecord")]
    assert names == ["cuLaunchKernel", "cuEventRecord", *["cuLaunchKernel"] * 5, "cuEventRecord"]


def test_everything_is_released_and_the_context_is_left(fake):
    gpu = fake.gpu()
    run_clamp(gpu)
    assert fake.live() == {"stream": 1, "module": 1, "context": 1}
    del gpu
    assert fake.live() == {}
    assert fake.names().count("cuMemAlloc_v2") == fake.names().count("cuMemFree_v2") == 2


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ({"version": 11080}, "CUDA 11.8, 12.0 and newer are allowed"),
        ({"count": 0}, "the driver shows 0 devices"),
        ({"count": 1}, "cuda:1 was asked for"),
    ],
)
def test_an_old_driver_and_a_device_that_is_not_there(fake, setting, found):
    fake.set_device(**setting)
    with pytest.raises(ConfigurationError, match=found) as caught:
        _core.Gpu(fake.driver(), 1, [])
    assert caught.value.hint
    assert fake.live() == {}


def test_no_driver_and_a_library_that_is_none():
    with pytest.raises(ConfigurationError, match="no NVIDIA driver was found") as caught:
        _core.CudaDriver("/nowhere/libcuda.so.1")
    assert "525" in caught.value.hint
    with pytest.raises(ConfigurationError, match="has no cuInit"):
        _core.CudaDriver("libm.so.6")


@pytest.mark.parametrize("bad", ["not a cubin", "cubin other"])
def test_a_cubin_that_does_not_fit_names_kernel_and_device(fake, bad):
    kernel = _core.KernelImage(
        CLAMP,
        "clamp",
        bad.encode() + b"\0",
        [8, 8, 4, 4, 4],
        warps=2,
        shared_bytes=0,
        constants={"BLOCK": 1024},
    )
    gpu = _core.Gpu(fake.driver(), 0, [kernel])
    with pytest.raises(ConfigurationError, match=r"kernel clamp.fp32.any: .* Fake 0, sm_90"):
        run_clamp(gpu)
    with pytest.raises(ConfigurationError, match="there is none for sm_90"):
        gpu.run_kernel("blend.fp32.any", (1, 1, 1), [])
    del gpu
    assert fake.live() == {}


def test_parameters_of_another_kernel_are_never_launched(fake):
    gpu = fake.gpu()
    fake.clear()
    with pytest.raises(InternalError, match="launched with 1 parameters"):
        gpu.run_kernel(CLAMP, (1, 1, 1), [None])
    assert "cuLaunchKernel" not in fake.names()


def test_out_of_memory_tells_the_sizes_and_leaves_the_gpu_usable(fake):
    gpu = fake.gpu()
    fake.fail("cuMemAlloc_v2", 1, 2)
    with pytest.raises(OutOfMemoryError, match="28 bytes; 1000 of 17179869184 are free"):
        run_clamp(gpu)
    assert not gpu.is_lost
    run_clamp(gpu)


def test_a_sticky_error_marks_the_gpu_lost(fake):
    gpu = fake.gpu()
    fake.fail("cuLaunchKernel", 0, 700)
    with pytest.raises(DeviceLostError, match=r"cuda:0: the device stopped: .*ILLEGAL_ADDRESS"):
        run_clamp(gpu)
    assert gpu.is_lost
    fake.clear()
    with pytest.raises(DeviceLostError, match="stopped earlier") as caught:
        run_clamp(gpu)
    assert "restarted" in caught.value.hint
    assert fake.calls() == []  # the driver is not asked again
    assert isinstance(caught.value, ExecutionError)


def test_every_call_failing_in_turn_is_a_typed_error_and_leaks_nothing(fake):
    """Calls of a release may fail unseen, and then leave behind what they should have released."""
    outcomes, messages = [], []
    for failing in range(100):
        fake.reset()
        fake.fail("*", failing, 1)
        try:
            run_clamp(fake.gpu())
            outcomes.append("done")
        except TextopiaError as error:
            outcomes.append(error.code)
            messages.append(str(error))
        fake.fail("", 0, 0)
        assert outcomes[-1] == "done" or fake.live() == {}
    assert all("CUDA_ERROR_FAKE" in message for message in messages)
    assert outcomes[-1] == "done"
    assert {"configuration", "execution_failed", "done"} == set(outcomes)
    assert 30 < len(outcomes) - outcomes.count("done") < 60


def test_a_forked_child_is_told_so(fake):
    gpu = fake.gpu()
    fake.clear()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            run_clamp(gpu)
            found = "nothing was raised"
        except ForkedProcessError:
            found = f"forked {len(fake.calls())}"
        except BaseException as error:  # whatever it is, the parent shall see it
            found = repr(error)
        os.write(write, found.encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 1000) == b"forked 0"
    os.close(read)
    os.close(write)
    run_clamp(gpu)  # the parent goes on
