"""The loop over ONNX Runtime's CUDA provider: whose stream, what waits, what is allocated."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

import textopia_fast as tx
from tests.cuda_provider.graphs import BUNDLED, UNET_SIZES, model_of, with_sizes
from tests.support.cuda_provider import streams_of
from tests.test_loop import program_of, random_latents
from textopia_fast import _ort

WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy")
ALLOCATIONS = ("cudaMalloc", "cudaMallocHost", "cudaHostAlloc", "cudaFree", "cudaFreeHost")


def copying_network() -> bytes:
    """e = x: the one network that the fake computes, since it copies. No node on the GPU reads its
    time, so ONNX Runtime keeps that on the host."""
    node = helper.make_node("Identity", ["sample"], ["out_sample"])
    shape = ["rows", 4, "h", "w"]
    return model_of([node], {"sample": shape, "timestep": ["rows"]}, {"out_sample": shape})


def bundled_feeds() -> dict[str, np.ndarray]:
    return {
        "sample": np.ones((2, 4, 16, 16), np.float32),
        "timestep": np.array(10.0, np.float32),
        "encoder_hidden_states": np.ones((2, 16, 128), np.float32),
    }


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "euler_ancestral", "heun"])
def test_samples_are_those_of_the_cpu(fake, sampler):
    program = program_of(sampler, 8)
    results = []
    for device in ("cpu", fake.gpu()):
        noise = tx.Noise.philox([7, 8]) if program.draw_count else None
        denoiser = tx.Denoiser(copying_network(), device=device)
        results.append(tx.sample(denoiser, random_latents(2), program, noise=noise))
    scale = np.abs(results[0]).max()
    np.testing.assert_allclose(
        results[1], results[0], rtol=0, atol=3e-6 * scale
    )  # logarithms of libm


@pytest.mark.parametrize("captures", [True, False])
def test_a_step_is_one_run_and_one_launch(fake, captures):
    gpu = fake.gpu()
    denoiser = tx.Denoiser(copying_network(), device=gpu, cuda_graphs=captures)
    program = program_of("euler", 8)
    x = random_latents(2)
    tx.sample(denoiser, x, program)
    fake.clear()
    tx.sample(denoiser, x, program)
    stream = f"{gpu.stream:#x}"
    run = f"cudaMemcpyAsync {x.nbytes} 3 {stream}"
    time = f"cudaMemcpyAsync 8 2 {stream}"
    calls = [line for line in fake.runtime_calls() if "Memcpy" in line or "Graph" in line]
    # Where the host reads an input, as the time here, it reads what is there before each run, and
    # once when it is bound; so such a run is not captured.
    assert calls == [time] + [time, run] * 8
    assert fake.names().count("cuLaunchKernel") == 8 + 1  # the first scales the latents
    assert fake.count(*WAITS, *ALLOCATIONS) == 0
    assert fake.names().count("cuStreamSynchronize") <= 2  # at the end, and when the loop goes


def test_everything_is_on_our_stream(fake):
    gpu = fake.gpu()
    session = _ort.create_session(BUNDLED / "unet" / "model.onnx", gpu=gpu)
    session.run(bundled_feeds())  # the first run of a convolution waits for what it chooses from
    fake.clear()
    session.run(bundled_feeds())
    calls = fake.runtime_calls()
    assert streams_of(calls) == {f"{gpu.stream:#x}"}
    given = [line.split(" ") for line in fake.calls()]
    libraries = {
        words[1] for words in given if words[0] in ("cublasSetStream_v2", "cudnnSetStream")
    }
    assert libraries <= {f"{gpu.stream:#x}"}
    assert sum(line.startswith("cudaLaunchKernel") for line in calls) > 100
    assert sum(line.startswith("cudnnBackendExecute") for line in calls) == 49  # convolutions
    # The host's arrays are waited for: once, at the end.
    assert fake.count("cudaStreamSynchronize") == 1
    assert fake.count("cudaDeviceSynchronize") == 0


@pytest.mark.parametrize("fixed", [False, True])
def test_the_bundled_network_does_not_wait_either(fake, fixed):
    """With free sizes the host computes some, so that its runs cannot be captured."""
    fake.fill_memory(0)  # what the provider's kernels leave unwritten
    path = BUNDLED / "unet" / "model.onnx"
    denoiser = tx.Denoiser(with_sizes(path, UNET_SIZES) if fixed else path, device=fake.gpu())
    assert (denoiser.session.cuda_graphs == "on") == fixed
    given = {"encoder_hidden_states": np.ones((2, 16, 128), np.float32)}
    x, program = random_latents(2, size=(16, 16)), program_of("euler", 4)
    for _ in range(2):
        fake.clear()
        tx.sample(denoiser, x, program, given)
    assert fake.count("cudaGraphLaunch") == (4 if fixed else 0)
    assert fake.count("cudnnBackendExecute") == (0 if fixed else 4 * 49)
    assert fake.count(*WAITS) == 0
    assert fake.count(*ALLOCATIONS) == 0
    copies = {line.split(" ")[2] for line in fake.calls() if line.startswith("cudaMemcpyAsync")}
    assert copies == (set() if fixed else {"3", "1"})  # with free sizes a few numbers go up


def network_of_ours() -> bytes:
    """e = a layer norm of ours, which the fake computes, over the width."""
    weights = {
        "gamma": np.linspace(0.5, 2, 16).astype(np.float32),
        "beta": np.zeros(16, np.float32),
    }
    node = helper.make_node(
        "LayerNorm", ["sample", "gamma", "beta"], ["out_sample"], domain="ai.textopia", epsilon=1e-5
    )
    # The GPU reads the time, for nothing: runs whose time the host reads are not captured.
    read = helper.make_node("Add", ["timestep", "timestep"], ["twice"])
    shape = ["rows", 4, "h", 16]
    inputs = {"sample": shape, "timestep": ["rows"]}
    outputs = {"out_sample": shape, "twice": ["rows"]}
    model = onnx.load_from_string(model_of([node, read], inputs, outputs, weights))
    model.opset_import.append(helper.make_opsetid("ai.textopia", 1))
    return model.SerializeToString()


@pytest.mark.parametrize("captures", [True, False])
def test_our_operators_compute_the_same_as_without_the_provider(fake, captures):
    """Also where their launches are those of a captured graph, with what was given to them then."""
    program, x = program_of("dpmpp_2m", 6), random_latents(2, size=(8, 16))
    emulated = tx.Denoiser(network_of_ours(), device=fake.gpu(emulated=True))
    wanted = tx.sample(emulated, x, program)
    denoiser = tx.Denoiser(network_of_ours(), device=fake.gpu(), cuda_graphs=captures)
    for _ in range(2):
        fake.clear()
        np.testing.assert_array_equal(tx.sample(denoiser, x, program), wanted)
    assert fake.count("cudaGraphLaunch") == (6 if captures else 0)
    layer_norms = sum(line.startswith("cuLaunchKernel layer_norm") for line in fake.calls())
    assert layer_norms == (0 if captures else 6)


def test_a_new_shape_and_back(fake):
    denoiser = tx.Denoiser(copying_network(), device=fake.gpu())
    program = program_of("euler", 3)
    for size in ((5, 3), (8, 8), (5, 3)):
        x = random_latents(2, size=size)
        on_cpu = tx.sample(tx.Denoiser(copying_network()), x, program)
        on_gpu = tx.sample(denoiser, x, program)
        np.testing.assert_allclose(on_gpu, on_cpu, rtol=0, atol=3e-6 * np.abs(on_cpu).max())


def test_memory_is_given_back(fake):
    gpu = fake.gpu()
    denoiser = tx.Denoiser(BUNDLED / "unet" / "model.onnx", device=gpu)
    assert fake.live()["memory"] >= 1
    del denoiser
    assert fake.live().get("memory", 0) == 0
    del gpu
    assert fake.live() == {}


@pytest.fixture
def open_pipeline(fake, monkeypatch, tmp_path_factory):
    """Pipelines on the provider; what its kernels would write is zero."""
    gpu = fake.gpu()
    fake.fill_memory(0)
    monkeypatch.setattr("textopia_fast.stages.open_device", lambda device: gpu)
    cache = tmp_path_factory.getbasetemp() / "engines"

    def open_it(precision: str) -> tx.Pipeline:
        return tx.Pipeline.from_pretrained(
            "tiny-shapes", device="cuda", precision=precision, cache_dir=cache
        )

    return open_it


def draw(pipe: tx.Pipeline, seed: int = 0, **options: object) -> np.ndarray:
    found = pipe("a red circle", num_inference_steps=3, seed=seed, output_type="np", **options)
    assert np.isfinite(found.images).all()
    return found.images


# Convolutions of the decoder, and waits: for the prompt's states, time features and the picture.
@pytest.mark.parametrize(("precision", "convolutions"), [("fp16", 25), ("fp32", 28)])
def test_a_whole_pipeline_replays_its_steps(fake, open_pipeline, precision, convolutions):
    pipe = open_pipeline(precision)
    assert draw(pipe).shape == (1, 64, 64, 3)
    assert pipe.cuda_graphs == "on"
    fake.clear()
    draw(pipe, seed=1)
    assert fake.count("cudaGraphLaunch") == 3
    assert fake.count("cudaStreamBeginCapture") == 0
    names = [line.split(" ")[1] for line in fake.calls() if line.startswith("cuLaunchKernel")]
    assert names.count("combine") == 3 + 1  # the first scales the latents
    assert fake.count("cudnnBackendExecute") == convolutions
    assert len(streams_of(fake.runtime_calls())) == 1
    assert fake.count("cudaStreamSynchronize") <= 6
    assert fake.count("cudaDeviceSynchronize", "cudaEventSynchronize") == 0


def test_runs_of_every_size_are_captured_and_the_last_two_kept(fake, open_pipeline):
    pipe = open_pipeline("fp16")
    draw(pipe)
    for options in ({"guidance_scale": 1.0}, {"height": 96}, {"num_images_per_prompt": 3}):
        draw(pipe, **options)
        assert pipe.cuda_graphs == "on"
        fake.clear()
        draw(pipe, **options)
        assert fake.count("cudaStreamBeginCapture") == 0
        assert fake.count("cudaGraphLaunch") in (3, 9)  # together, or each image alone
    held = fake.live()["memory"]
    draw(pipe, width=96)
    draw(pipe)
    assert fake.live()["memory"] <= 1.3 * held


@pytest.mark.parametrize(
    "options", [{"guidance_interval": (0.5, 5.0)}, {"callback_on_step_end": lambda *_: {}}]
)
def test_runs_of_more_than_one_size_have_free_ones(fake, open_pipeline, options):
    pipe = open_pipeline("fp32")
    draw(pipe, **options)
    assert "nodes have not been partitioned to the CUDAExecutionProvider" in pipe.cuda_graphs
    fake.clear()
    draw(pipe, **options)
    assert fake.count("cudaGraphLaunch") == 0
