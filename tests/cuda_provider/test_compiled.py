"""Engines for CUDA on the provider: all on the GPU, our operators among its own, captured."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from tests.cuda_provider.graphs import BUNDLED
from textopia_fast import _core
from textopia_fast.graph.compile import compile_graph
from textopia_fast.graph.engine import write_graphs
from textopia_fast.graph.fixed import with_sizes
from textopia_fast.graph.targets import find_target

STRICT = {"session.disable_cpu_ep_fallback": "1"}
SIZES = {"batch_size": 2, "height": 16, "width": 16, "sequence_length": 16}
SIZES |= {"latent_height": 8, "latent_width": 8}
OURS = {"unet": {"group_norm": 60, "layer_norm": 21, "attention": 14, "geglu": 7}}
OURS["vae_decoder"] = {"group_norm": 44, "attention": 1}
# Convolutions, and the transposes that are left of the two around each.
CONVOLUTIONS = {"unet": (28, 2), "vae_decoder": (25, 2)}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory):
    """Files of a role's graphs, compiled once."""
    made: dict[str, dict[str, Path]] = {}

    def graphs(role: str) -> dict[str, Path]:
        if role not in made:
            compiled = compile_graph(BUNDLED / role / "model.onnx", role, find_target("cuda-fp16"))
            made[role] = write_graphs(compiled, tmp_path_factory.mktemp(role))
        return made[role]

    return graphs


def fixed(path: Path) -> tuple[bytes, dict[str, str], dict[str, np.ndarray]]:
    """The graph at SIZES, the config that finds its weights, and something to run it on."""
    inputs = onnx.load(path, load_external_data=False).graph.input
    names = {size.dim_param for value in inputs for size in value.type.tensor_type.shape.dim}
    graph = with_sizes(path, {name: SIZES[name] for name in names if name})
    feeds = {}
    for value in onnx.load_from_string(graph).graph.input:
        tensor = value.type.tensor_type
        dtype = np.float16 if tensor.elem_type == TensorProto.FLOAT16 else np.float32
        feeds[value.name] = np.zeros([size.dim_value for size in tensor.shape.dim], dtype)
    return graph, {"session.model_external_initializers_file_folder_path": str(path.parent)}, feeds


def launches(fake) -> Counter[str]:
    return Counter(line.split(" ")[1] for line in fake.calls() if line.startswith("cuLaunchKernel"))


@pytest.mark.parametrize(("role", "name"), [("unet", "body"), ("vae_decoder", "model")])
@pytest.mark.parametrize("prefers_nhwc", ["0", "1"])
def test_a_run_of_a_compiled_network(fake, engine, role, name, prefers_nhwc):
    gpu = fake.gpu()
    graph, folder, feeds = fixed(engine(role)[name])
    session = _core.Session.from_memory(
        graph, gpu=gpu, config=folder, cuda_options={"prefer_nhwc": prefers_nhwc}
    )
    session.run(feeds)
    fake.clear()
    session.run(feeds)
    convolutions, left = CONVOLUTIONS[role]
    transposes = sum("Transpose" in line for line in fake.runtime_calls())
    assert transposes <= left if prefers_nhwc == "1" else transposes >= 2 * convolutions - 4
    assert fake.count("cudnnBackendExecute") == convolutions
    assert launches(fake) == OURS[role]
    assert fake.count("cudaMalloc", "cuMemAlloc_v2", "cudaDeviceSynchronize") == 0
    assert fake.count("cudaStreamSynchronize") == 1  # for the host's arrays


def test_our_operators_are_captured(fake, engine):
    graph, folder, feeds = fixed(engine("unet")["body"])
    options = {"prefer_nhwc": "1", "enable_cuda_graph": "1"}
    session = _core.Session.from_memory(
        graph, gpu=fake.gpu(), config=folder | STRICT, cuda_options=options
    )
    fake.clear()
    session.run(feeds)
    assert launches(fake) == {name: 3 * count for name, count in OURS["unet"].items()}
    assert fake.count("cudaStreamBeginCapture", "cudaGraphInstantiate", "cudaGraphLaunch") == 3
    calls = fake.names()
    during = calls[calls.index("cudaStreamBeginCapture") : calls.index("cudaStreamEndCapture")]
    assert not {"cuMemAlloc_v2", "cudaMalloc", "cuStreamSynchronize"} & set(during)
    assert "cuLaunchKernel" in during
