"""What the provider answers when CUDA fails, as errors of ours, and what still works after each."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import textopia_fast as tx
from tests.cuda_provider.graphs import BUNDLED, add_then_relu, convolution
from tests.cuda_provider.test_graphs import timed_network
from tests.test_loop import program_of, random_latents
from textopia_fast import _core, _ort
from textopia_fast.errors import (
    ConfigurationError,
    DeviceLostError,
    ExecutionError,
    OutOfMemoryError,
)

ILLEGAL_ADDRESS, LAUNCH_FAILURE, INVALID_FUNCTION = 700, 719, 98
UNET = BUNDLED / "unet" / "model.onnx"
X = {"x": np.ones((2, 4, 8, 8), np.float32)}


def unet_feeds(rows: int, size: int) -> dict[str, np.ndarray]:
    return {
        "sample": np.ones((rows, 4, size, size), np.float32),
        "timestep": np.array(10.0, np.float32),
        "encoder_hidden_states": np.ones((rows, 16, 128), np.float32),
    }


def test_no_memory_for_the_weights(fake):
    gpu = fake.gpu()
    fake.set_largest_allocation(1000)
    with pytest.raises(OutOfMemoryError, match="unet: the graph cannot be loaded"):
        _ort.create_session(UNET, label="unet", gpu=gpu)
    fake.set_largest_allocation(1 << 40)
    assert not gpu.is_lost
    _ort.create_session(UNET, gpu=gpu).run(unet_feeds(1, 8))


def test_no_memory_in_a_run(fake):
    session = _ort.create_session(UNET, label="unet", gpu=fake.gpu())
    session.run(unet_feeds(1, 8))
    fake.set_largest_allocation(1000)
    with pytest.raises(OutOfMemoryError, match=r"unet: the graph failed: .*Failed to allocate"):
        session.run(unet_feeds(4, 32))
    fake.set_largest_allocation(1 << 40)
    session.run(unet_feeds(1, 8))
    session.run(unet_feeds(4, 32))


def test_a_limit_on_memory(fake):
    with pytest.raises(OutOfMemoryError):
        _core.Session.from_file(str(UNET), gpu=fake.gpu(), cuda_options={"gpu_mem_limit": "1000"})


@pytest.mark.parametrize(
    ("function", "status", "kind", "text"),
    [
        ("cudaGetDeviceCount", 100, ConfigurationError, "CUDA failure 100"),
        ("cudaSetDevice", 101, ExecutionError, "invalid device ordinal"),
        ("cublasCreate_v2", 1, ExecutionError, "CUBLAS failure 1"),
        ("cublasCreate_v2", 3, OutOfMemoryError, "CUBLAS failure 3"),
        ("cudnnCreate", 1, ExecutionError, "CUDNN failure 1"),
        ("cudaMemcpy", ILLEGAL_ADDRESS, DeviceLostError, "an illegal memory access"),
        ("cudaStreamSynchronize", LAUNCH_FAILURE, DeviceLostError, "unspecified launch failure"),
    ],
)
def test_failures_while_a_session_is_made(fake, function, status, kind, text):
    fake.fail(function, 0, status)
    with pytest.raises(kind, match=text) as caught:
        _ort.create_session(convolution(), label="graph", gpu=fake.gpu())
    assert type(caught.value) is kind
    assert "onnxruntime_src" not in str(caught.value)
    assert "hostname" not in str(caught.value)
    assert text in caught.value.details["cause"]
    fake.reset()
    _ort.create_session(convolution(), gpu=fake.gpu()).run(X)


@pytest.mark.parametrize(
    ("graph", "function", "status", "text"),
    [
        ("add_then_relu", "cudaLaunchKernel", INVALID_FUNCTION, "running Add node.*invalid device"),
        ("convolution", "cudnnBackendExecute", 13, "running Conv node.*the_conv.*CUDNN_FE failure"),
    ],
)
def test_a_run_that_fails_names_its_node(fake, graph, function, status, text):
    session = _ort.create_session(
        {"add_then_relu": add_then_relu, "convolution": convolution}[graph](), gpu=fake.gpu()
    )
    feeds = X if graph == "convolution" else {"x": np.ones((2, 4), np.float32)}
    fake.fail(function, 0, status)
    with pytest.raises(ExecutionError, match=text) as caught:
        session.run(feeds)
    assert type(caught.value) is ExecutionError
    session.run(feeds)


@pytest.mark.parametrize("status", [ILLEGAL_ADDRESS, LAUNCH_FAILURE])
@pytest.mark.parametrize("function", ["cudaLaunchKernel", "cudaStreamSynchronize"])
def test_a_lost_device(fake, function, status):
    gpu = fake.gpu()
    session = _ort.create_session(add_then_relu(), gpu=gpu)
    fake.fail(function, 0, status)
    feeds = {"x": np.ones((2, 4), np.float32)}
    for _ in range(2):
        with pytest.raises(DeviceLostError):
            session.run(feeds)
    with pytest.raises(DeviceLostError):
        _ort.create_session(add_then_relu(), gpu=gpu)
    del session
    assert gpu.is_lost


@pytest.mark.parametrize("function", ["cudaGraphLaunch", "cuLaunchKernel"])
def test_the_loop_on_a_lost_device(fake, function):
    """The provider ends the process where it cannot free a captured graph: we leave it alone."""
    gpu = fake.gpu()
    denoiser = tx.Denoiser(timed_network(), device=gpu)
    program = program_of("euler", 8)
    tx.sample(denoiser, random_latents(2), program)
    assert fake.count("cudaGraphInstantiate") == 1
    fake.fail(function, 5, ILLEGAL_ADDRESS)
    with pytest.raises(DeviceLostError):
        tx.sample(denoiser, random_latents(2), program)
    assert gpu.is_lost
    with pytest.raises(DeviceLostError, match="stopped earlier in this process"):
        tx.sample(denoiser, random_latents(2), program)
    fake.clear()
    del denoiser
    gc.collect()
    assert fake.count("cudaGraphExecDestroy", "cudaFree") == 0


@pytest.mark.parametrize("call", ["cudaStreamBeginCapture", "cudaGraphInstantiate"])
def test_a_capture_that_fails(fake, call):
    options = {"enable_cuda_graph": "1"}
    session = _core.Session.from_memory(convolution(), gpu=fake.gpu(), cuda_options=options)
    fake.fail(call, 0, 2)
    with pytest.raises(OutOfMemoryError):
        session.run(X)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"no_such_option": "1"}, "no_such_option"),
        ({"prefer_nhwc": "maybe"}, "prefer_nhwc"),
        ({"cudnn_conv_algo_search": "FAST"}, "FAST"),
        ({"device_id": "3"}, "Invalid device ID: 3"),
    ],
)
def test_options_that_the_provider_refuses(fake, options, text):
    with pytest.raises(ConfigurationError, match=text) as caught:
        _core.Session.from_memory(add_then_relu(), gpu=fake.gpu(), cuda_options=options)
    assert caught.value.hint is None


def test_capture_needs_every_node_on_the_gpu(fake):
    with pytest.raises(ConfigurationError, match="cannot use the graph capture feature"):
        _core.Session.from_file(str(UNET), gpu=fake.gpu(), cuda_options={"enable_cuda_graph": "1"})


def test_no_such_second_device(fake):
    fake.set_device(count=2)
    with pytest.raises(ConfigurationError, match="cuda:2 was asked for"):
        _core.Gpu(fake.driver(), 2, [])
    session = _ort.create_session(add_then_relu(), gpu=_core.Gpu(fake.driver(), 1, []))
    assert session.cuda_device == 1
    assert "cudaSetDevice 1" in fake.calls()
