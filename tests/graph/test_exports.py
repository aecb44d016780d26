"""Whole exported networks: compiled, they compute what they computed before."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.graph.running import (
    EXPORTS,
    GOLDEN,
    compiled_export,
    inputs_of,
    run_compiled,
    run_export,
)
from textopia_fast.graph.compile import compile_graph
from textopia_fast.graph.targets import find_target
from textopia_fast.models import BUNDLED

REFERENCE = find_target("reference")
UNET = {"Conv": 33, "GroupNorm": 21, "LayerNorm": 12, "Attention": 8, "LinearGeglu": 4}


def path_of(name: str) -> Path:
    if name.startswith("tiny-shapes"):
        return BUNDLED["tiny-shapes"] / name.partition("/")[2] / "model.onnx"
    return GOLDEN / name / "model.onnx" if "/" in name else EXPORTS / f"{name}.onnx"


def role_of(name: str) -> str:
    roles = ("unet", "vae_decoder", "vae_encoder", "text")
    found = next(role for role in roles if role in name)
    return "text_encoder" if found == "text" else found


def check_equal(name: str, batch: int, height: int, width: int, tokens: int) -> Counter[str]:
    """Compares the results; gives the operators of all graphs of the network."""
    path, role = path_of(name), role_of(name)
    if role == "unet":
        role = "whole"  # not split
    in_graphs = path.parent == EXPORTS
    compiled = compiled_export(name, role) if in_graphs else compile_graph(path, role, REFERENCE)
    feeds = inputs_of(str(path), batch, height, width, tokens)
    expected = run_export(path, feeds)
    results = run_compiled(compiled.graphs["model"], feeds)
    for want, got in zip(expected, results.values(), strict=True):
        # float32 sums in another order; activations of these networks are of size 1 to 10.
        scale = np.abs(want).max()
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * max(1.0, scale))
    return Counter(node.op_type for node in compiled.graphs["model"].graph)


@pytest.mark.parametrize(
    "name", ["unet_baddbmm_14", "unet_14", "unet_17", "unet_dynamo_18", "unet_dynamo_23"]
)
def test_a_unet_of_any_exporter_becomes_the_same_operators(name: str) -> None:
    found = check_equal(name, 2, 8, 12, 5)
    assert {key: found[key] for key in UNET} == UNET
    # The rest is: sizes, the sinusoid of the timestep, joins of skip connections, two borders.
    assert not {"MatMul", "Gemm", "Softmax", "Erf", "Sigmoid", "Resize"} & set(found)
    assert found["Transpose"] == 2


def test_the_unet_of_sdxl() -> None:
    found = check_equal("unet_xl_17", 2, 8, 12, 5)
    assert not {"MatMul", "Gemm", "Softmax", "Erf", "Resize"} & set(found)
    assert found["Sigmoid"] == 1  # after the sum of two embeddings, which stays a sum


@pytest.mark.parametrize("name", ["tiny_sd/unet", "tiny-shapes/unet"])
def test_unets_of_whole_models(name: str) -> None:
    found = check_equal(name, 2, 8, 16, 7)
    assert not {"Gemm", "Erf", "Resize"} & set(found)


@pytest.mark.parametrize(
    "name",
    ["vae_decoder_17", "vae_decoder_dynamo_18", "tiny_sd/vae_decoder", "tiny-shapes/vae_decoder"],
)
def test_a_vae_decoder(name: str) -> None:
    found = check_equal(name, 1, 6, 10, 0)
    assert found["Attention"] == 1
    assert found["Transpose"] == 2
    left = {"MatMul", "InstanceNormalization", "Softmax", "Sigmoid", "Resize", "Add"}
    assert not left & set(found)


@pytest.mark.parametrize(
    "name", ["vae_encoder_17", "tiny_sd/vae_encoder", "tiny-shapes/vae_encoder"]
)
def test_a_vae_encoder(name: str) -> None:
    found = check_equal(name, 1, 16, 24, 0)
    assert not {"MatMul", "InstanceNormalization", "Softmax", "Sigmoid", "Pad"} & set(found)


@pytest.mark.parametrize(
    "name",
    ["text_quick_gelu_14", "text_gelu_18", "tiny_sd/text_encoder", "tiny-shapes/text_encoder"],
)
def test_a_text_encoder(name: str) -> None:
    found = check_equal(name, 3, 0, 0, 9)
    assert found["Attention"] >= 2
    assert not {"MatMul", "Gemm", "Softmax", "Sigmoid", "Erf", "LayerNormalization"} & set(found)


@pytest.mark.parametrize(("batch", "height", "width", "tokens"), [(1, 4, 4, 1), (3, 10, 6, 7)])
def test_sizes_stay_free(batch: int, height: int, width: int, tokens: int) -> None:
    check_equal("unet_dynamo_23", batch, height, width, tokens)


def test_a_float16_export_is_computed_in_float32() -> None:
    path = EXPORTS / "unet_17_fp16.onnx"
    compiled = compile_graph(path, "model", REFERENCE)
    feeds = inputs_of("unet_17_fp16", 2, 8, 12, 5)
    results = run_compiled(compiled.graphs["model"], feeds)
    exact = run_export(EXPORTS / "unet_17.onnx", feeds)[0]
    # Only the weights are rounded to half precision: 2^-11 each.
    np.testing.assert_allclose(results["out_sample"], exact, rtol=0, atol=5e-3)
    found = Counter(node.op_type for node in compiled.graphs["model"].graph)
    assert {key: found[key] for key in UNET} == UNET
