"""Where the provider puts the nodes of real exports, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from onnx import helper

from tests.cuda_provider.graphs import BUNDLED, UNET_SIZES, VAE_SIZES, model_of, with_sizes
from textopia_fast import _ort
from textopia_fast.errors import UnsupportedModelError

# What refuses every node on the CPU, size arithmetic included.
STRICT = {"session.disable_cpu_ep_fallback": "1"}
# The true-size exports of benchmarks/, where they were made.
TRUE_SIZE = os.environ.get("TEXTOPIA_SD15_ONNX")


@pytest.mark.parametrize("part", ["unet", "vae_decoder", "vae_encoder", "text_encoder"])
def test_exports_with_free_sizes_are_taken(fake, part):
    session = _ort.create_session(BUNDLED / part / "model.onnx", gpu=fake.gpu())
    assert session.cuda_device == 0
    # ONNX Runtime's own check would refuse them: the provider leaves the arithmetic on sizes to the
    # CPU.
    with pytest.raises(UnsupportedModelError, match="explicitly disabled"):
        _ort.create_session(BUNDLED / part / "model.onnx", gpu=fake.gpu(), config=STRICT)


@pytest.mark.parametrize(
    ("part", "sizes"),
    [("unet", UNET_SIZES), ("vae_decoder", VAE_SIZES), ("vae_encoder", {})],
)
def test_with_fixed_sizes_every_node_is_on_the_gpu(fake, part, sizes):
    path = BUNDLED / part / "model.onnx"
    if not sizes:
        sizes = {"batch_size": 1, "height": 64, "width": 64}
    _ort.create_session(with_sizes(path, sizes), gpu=fake.gpu(), config=STRICT)


def test_the_text_encoder_keeps_a_search_on_the_cpu(fake):
    """CLIP finds the end of a text as the largest token: integers, for which CUDA has no ArgMax."""
    graph = with_sizes(
        BUNDLED / "text_encoder" / "model.onnx", {"batch_size": 2, "sequence_length": 16}
    )
    with pytest.raises(UnsupportedModelError, match="explicitly disabled"):
        _ort.create_session(graph, gpu=fake.gpu(), config=STRICT)


def test_nodes_that_the_provider_cannot_run_are_named(fake):
    nodes = [helper.make_node("Add", ["x", "x"], ["x0"])]
    nodes += [
        helper.make_node("Det", [f"x{i}"], [f"y{i}"], name=f"block/Det_{i}") for i in range(1)
    ]
    graph = model_of(nodes, {"x": ["rows", 4, 4]}, {"y0": ["rows"]})
    with pytest.raises(UnsupportedModelError) as caught:
        _ort.create_session(graph, label="unet", gpu=fake.gpu())
    assert "unet: ONNX Runtime's CUDA provider cannot run 'block/Det_0' (Det)." in str(caught.value)
    assert 'device="cpu"' in caught.value.hint


def test_many_are_counted(fake):
    nodes = [helper.make_node("Det", ["x"], [f"y{i}"], name=f"d{i}") for i in range(8)]
    graph = model_of(nodes, {"x": ["rows", 4, 4]}, {f"y{i}": ["rows"] for i in range(8)})
    # Eight equal nodes are merged into one where graphs are optimized.
    with pytest.raises(UnsupportedModelError, match=r"'d\d' \(Det\), .* and 3 more\."):
        _ort.create_session(graph, gpu=fake.gpu(), optimization_level=0)


@pytest.mark.skipif(
    not TRUE_SIZE, reason="needs exports of Stable Diffusion 1.5 (TEXTOPIA_SD15_ONNX)"
)
@pytest.mark.parametrize("part", ["unet", "vae_decoder", "vae_encoder", "text_encoder"])
def test_true_size_exports_are_taken(fake, part):
    _ort.create_session(Path(TRUE_SIZE, part, "model.onnx"), gpu=fake.gpu())
