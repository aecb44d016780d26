"""Captured and replayed runs on ONNX Runtime's CUDA provider: what is launched, when, and until
when a graph lives."""

from __future__ import annotations

import numpy as np
from onnx import helper

import textopia_fast as tx
from tests.cuda_provider.graphs import model_of
from tests.cuda_provider.test_runs import copying_network
from tests.test_loop import program_of, random_latents

STEPS = 6


def timed_network() -> bytes:
    """e = x, which the fake computes, since it copies; the GPU reads the time, for nothing."""
    shape = ["rows", 4, "h", "w"]
    nodes = [
        helper.make_node("Identity", ["sample"], ["out_sample"]),
        helper.make_node("Add", ["timestep", "timestep"], ["twice"]),
    ]
    outputs = {"out_sample": shape, "twice": ["rows"]}
    return model_of(nodes, {"sample": shape, "timestep": ["rows"]}, outputs)


def sample(denoiser: tx.Denoiser, batch: int = 2) -> np.ndarray:
    return tx.sample(denoiser, random_latents(batch), program_of("euler", STEPS))


def test_the_first_run_is_captured_and_all_others_are_replayed(fake):
    gpu = fake.gpu()
    denoiser = tx.Denoiser(timed_network(), device=gpu)
    assert denoiser.session.cuda_graphs == "on"
    fake.clear()
    first = sample(denoiser)
    assert fake.count("cudaStreamBeginCapture") == 1
    fake.clear()
    np.testing.assert_array_equal(sample(denoiser), first)
    calls = fake.runtime_calls()
    assert len(calls) == STEPS
    assert all(call.startswith("cudaGraphLaunch") for call in calls)
    assert {call.split(" ")[1] for call in calls} == {f"{gpu.stream:#x}"}
    assert fake.names().count("cuLaunchKernel") == STEPS + 1
    plain = tx.Denoiser(timed_network(), device=gpu, cuda_graphs=False)
    np.testing.assert_array_equal(sample(plain), first)


def test_graphs_of_a_session_are_bounded(fake):
    """ONNX Runtime keeps graphs that were released: after 64 shapes none is captured any more."""
    denoiser = tx.Denoiser(timed_network(), device=fake.gpu())
    fake.clear()
    for batch in range(1, 71):
        sample(denoiser, batch)
    assert fake.count("cudaStreamBeginCapture") == 64


def test_an_input_that_the_host_reads_is_no_graphs(fake):
    denoiser = tx.Denoiser(copying_network(), device=fake.gpu())
    assert denoiser.session.cuda_graphs == "off: the host reads the input 'timestep'"
    fake.clear()
    sample(denoiser)
    assert fake.count("cudaStreamBeginCapture", "cudaGraphLaunch") == 0
