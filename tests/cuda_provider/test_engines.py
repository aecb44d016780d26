"""Engines on ONNX Runtime's own CUDA provider: with fixed sizes every node of them is placed on the
GPU, in both types, and without them only what computes sizes is not."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from textopia_fast import _ort
from textopia_fast.errors import ModelFormatError, UnsupportedModelError
from textopia_fast.graph import EngineDirectory, compile_directory
from textopia_fast.graph.fixed import with_sizes
from textopia_fast.graph.targets import find_target
from textopia_fast.models import open_directory

STRICT = {"session.disable_cpu_ep_fallback": "1"}
SIZES = {"sample": (2, 0, 16, 16), "latent_sample": (2, 0, 8, 8), "input_ids": (2, 16)}
TARGETS = ("cuda-fp16", "cuda-bf16")
PARTS = {
    "unet": ("body", "time", "prompt"),
    "vae_decoder": ("model",),
    "vae_encoder": ("model",),
    "text_encoder": ("model",),
}


@pytest.fixture(scope="module", params=TARGETS)
def engine(request, tmp_path_factory: pytest.TempPathFactory) -> EngineDirectory:
    cache = tmp_path_factory.mktemp(request.param)
    return compile_directory(open_directory("tiny-shapes"), request.param, cache)


def sizes_of(path: Path) -> dict[str, int]:
    """A number for every free size of a graph's inputs."""
    graph = onnx.load(path, load_external_data=False).graph
    found: dict[str, int] = {}
    for value in graph.input:
        numbers = SIZES.get(value.name, (2, 16, 0))  # of a prompt: rows, tokens
        for dim, number in zip(value.type.tensor_type.shape.dim, numbers, strict=False):
            if dim.dim_param:
                found.setdefault(dim.dim_param, number)
    return found


@pytest.mark.parametrize(
    ("part", "graph"), [(part, graph) for part, graphs in PARTS.items() for graph in graphs]
)
def test_every_node_is_on_the_gpu(fake, engine, part, graph):
    path = engine.parts[part].graphs[graph]
    folder = {"session.model_external_initializers_file_folder_path": str(path.parent)}
    fixed = with_sizes(path, sizes_of(path))
    session = _ort.create_session(
        fixed,
        label=graph,
        gpu=fake.gpu(),
        config={**STRICT, **folder},
        is_compiled=True,
        cuda_options=dict(find_target(engine.target).cuda_options),
    )
    assert session.cuda_device == 0


def test_convolutions_of_bfloat16_have_one_layout(fake, engine):
    """The provider refuses to turn them; those of float16 it turns."""
    path = engine.parts["vae_decoder"].graphs["model"]
    if engine.target == "cuda-fp16":
        _ort.create_session(path, gpu=fake.gpu(), is_compiled=True)
        assert not find_target(engine.target).cuda_options
        return
    with pytest.raises(ModelFormatError):
        _ort.create_session(path, gpu=fake.gpu(), is_compiled=True)


def test_runs_at_fixed_sizes_can_be_captured(fake, engine):
    path = engine.parts["unet"].graphs["body"]
    folder = {"session.model_external_initializers_file_folder_path": str(path.parent)}
    session = _ort.create_session(
        with_sizes(path, sizes_of(path)),
        gpu=fake.gpu(),
        config=folder,
        cuda_graphs=True,
        is_compiled=True,
        cuda_options=dict(find_target(engine.target).cuda_options),
    )
    assert session.cuda_graphs == "on"


@pytest.mark.parametrize("part", PARTS)
def test_with_free_sizes_the_host_computes_sizes_alone(fake, engine, part):
    for path in engine.parts[part].graphs.values():
        _ort.create_session(path, gpu=fake.gpu())  # any other node on the host would be refused
    if part != "unet":
        with pytest.raises(UnsupportedModelError, match="explicitly disabled"):
            _ort.create_session(path, gpu=fake.gpu(), config=STRICT)
