"""Two GPUs in one process: each has its own context, stream, kernels and memory. The fake driver
refuses whatever is used in the context of the other."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import textopia_fast as tx
from tests.support.dlpack import GpuArray
from tests.support.fake_cuda import FakeCuda
from tests.support.networks import tanh_network
from tests.test_loop import program_of, random_latents
from textopia_fast import _core, devices
from textopia_fast.errors import (
    ConfigurationError,
    DeviceLostError,
    ForkedProcessError,
    InvalidRequestError,
    OutOfMemoryError,
)


@pytest.fixture
def fake() -> FakeCuda:
    fake = FakeCuda()
    fake.set_device(count=2)
    return fake


@pytest.fixture
def two(fake) -> list[tx.Denoiser]:
    graph = tanh_network(has_condition=False)
    return [tx.Denoiser(graph, device=fake.gpu(ordinal)) for ordinal in range(2)]


def run(denoiser: tx.Denoiser, seed: int = 0, **options: object) -> np.ndarray:
    noise = tx.Noise.torch([seed])
    x = random_latents(1, seed)
    return tx.sample(denoiser, x, program_of("euler_ancestral", 5), noise=noise, **options)


def test_both_work_side_by_side(fake, two):
    wanted = [run(two[0], seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seed: run(two[seed % 2], seed), range(4)))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)
    live = fake.live()
    live.pop("memory", None)  # a denoiser may keep its network's for the next request
    assert live == {"stream": 2, "module": 2, "context": 2}
    two.clear()
    assert fake.live() == {}


def test_arrays_of_the_other_gpu_are_refused(fake, two):
    x = random_latents(1)
    there = GpuArray(fake, x, device=1)
    with pytest.raises(InvalidRequestError, match=r"x: an array on cuda:1, .* on cuda:0") as caught:
        tx.sample(two[0], there, program_of("euler", 3))
    assert "Move it there" in caught.value.hint
    result = tx.sample(two[1], there, program_of("euler", 3))
    assert result.device == "cuda:1"
    assert result.__dlpack_device__() == (2, 1)
    np.testing.assert_array_equal(result.numpy(), tx.sample(two[0], x, program_of("euler", 3)))
    native = _core.DeviceArray(two[1].gpu, x)
    program = _core.Program([("clamp", 0, 0, 0.0, 1.0)], latents=1, outputs=0, result=0)
    with pytest.raises(InvalidRequestError, match=r"an array on cuda:1; the loop runs on cuda:0"):
        _core.sample(two[0]._native, program, native)


def test_one_lost_leaves_the_other(fake, two):
    good = run(two[1])
    fake.fail("cuLaunchKernel", 1, 2)
    with pytest.raises(OutOfMemoryError):
        run(two[0])
    np.testing.assert_array_equal(run(two[0]), good)  # in a request, and usable after it
    fake.fail("cuLaunchKernel", 1, 700)
    with pytest.raises(DeviceLostError, match="cuda:0"):
        run(two[0])
    fake.heal()  # the fake's driver is one; NVIDIA's loses a device alone
    np.testing.assert_array_equal(run(two[1]), good)
    with pytest.raises(DeviceLostError, match="cuda:0: the device stopped earlier"):
        run(two[0])


def test_every_allocation_of_a_request_failing_in_turn(two, fake):
    """Out of memory wherever it happens: typed, with the device's name, and the next one works."""
    good = run(two[1])
    fake.clear()
    run(two[1])
    names = fake.names()
    for call in ("cuMemAlloc_v2", "cuMemAllocHost_v2"):
        assert names.count(call) >= 2
        for failing in range(names.count(call)):
            fake.fail(call, failing, 2)
            with pytest.raises(OutOfMemoryError, match="cuda:1: no memory"):
                run(two[1])
            assert "memory" not in fake.live()
            assert "pinned" not in fake.live()
            np.testing.assert_array_equal(run(two[1]), good)


def test_a_child_of_a_process_with_a_gpu(fake, two):
    """Everything of the parent's is refused with a typed error; releasing it does nothing."""
    good = run(two[1])
    read, write = os.pipe()
    if os.fork() == 0:
        found = []
        for use in (lambda: run(two[1]), fake.gpu, lambda: two[0].gpu.memory):
            try:
                use()
                found.append("nothing was raised")
            except ForkedProcessError as error:
                found.append("spawn" if "spawn" in (error.hint or "") else "no hint")
            except BaseException as error:  # whatever it is, the parent shall see it
                found.append(repr(error))
        fake.clear()
        two.clear()
        found.append(f"{len([name for name in fake.names() if 'Destroy' in name])} released")
        os.write(write, ", ".join(found).encode())
        os._exit(0)
    os.wait()
    assert os.read(read, 1000).decode() == "spawn, spawn, spawn, 0 released"
    os.close(read)
    os.close(write)
    np.testing.assert_array_equal(run(two[1]), good)  # the parent goes on


def test_the_second_is_asked_for_by_name(fake, monkeypatch, tmp_path):
    driver = fake.driver()
    monkeypatch.setattr(devices._core, "CudaDriver", lambda *_: driver)
    archive = tmp_path / "sm_90.zip"
    monkeypatch.setattr(devices, "find_archive", lambda architecture, name: archive)
    monkeypatch.setattr(devices, "read_archive", lambda path: [])
    assert devices.open_device("cuda:1").ordinal == 1
    assert devices.open_device("cuda").ordinal == 0
    with pytest.raises(ConfigurationError, match="cuda:2 was asked for, the driver shows 2"):
        devices.open_device("cuda:2")
