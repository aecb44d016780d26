"""Engines for CUDA: whole networks, lowered to operators that the provider has in the target's
type, compute what the export does."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from tests.graph.cuda_operators import unsupported
from tests.graph.running import inputs_of, relative_error, run_compiled, run_export, run_rounded
from tests.graph.test_exports import path_of, role_of
from textopia_fast.graph.compile import Compiled, compile_graph
from textopia_fast.graph.targets import find_target

TYPES = ("float16", "bfloat16")
# Relative L2 errors: roundings to 11 and to 8 bits, some dozens of times in a row.
TOLERANCE = {"float16": 4e-3, "bfloat16": 3e-2}
UNETS = [
    "unet_baddbmm_14",
    "unet_17",
    "unet_dynamo_18",
    "unet_dynamo_23",
    "unet_xl_17",
    "unet_17_fp16",
    "tiny_sd/unet",
    "tiny-shapes/unet",
]
OTHERS = [
    "vae_decoder_17",
    "vae_decoder_dynamo_18",
    "tiny_sd/vae_decoder",
    "tiny-shapes/vae_decoder",
    "vae_encoder_17",
    "tiny_sd/vae_encoder",
    "tiny-shapes/vae_encoder",
    "text_quick_gelu_14",
    "text_gelu_18",
    "tiny_sd/text_encoder",
    "tiny-shapes/text_encoder",
]
SIZES = {"unet": (2, 8, 12, 5), "text_encoder": (2, 0, 0, 9), "vae_decoder": (1, 6, 10, 0)}


@lru_cache(maxsize=64)
def compiled(name: str, dtype: str) -> Compiled:
    target = find_target("cuda-fp16" if dtype == "float16" else "cuda-bf16")
    return compile_graph(path_of(name), role_of(name), target)


@lru_cache(maxsize=32)
def expected(name: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    feeds = inputs_of(str(path_of(name)), *SIZES.get(role_of(name), (1, 16, 24, 0)))
    results = run_export(path_of(name), feeds)
    return feeds, results[0].astype(np.float32)


def run_parts(name: str, parts: Compiled, run=run_rounded) -> np.ndarray:
    """The graphs of a network one after the other; the first result."""
    feeds, _ = expected(name)
    values = {key: np.float32(v) if v.dtype == np.float16 else v for key, v in feeds.items()}
    if "time" in parts.graphs:
        rows = len(values["sample"])
        values["timestep"] = np.repeat(values["timestep"].reshape(-1), rows)
    for graph in ("time", "prompt", "body", "model"):
        if graph in parts.graphs:
            results = run(parts.graphs[graph], values)
            values |= results
    return next(iter(results.values()))


# What differs in bfloat16 is the operator set and the upsampling.
IN_BFLOAT16 = ["unet_baddbmm_14", "unet_dynamo_23", "unet_xl_17", "vae_decoder_17", "text_gelu_18"]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *((name, "float16") for name in UNETS + OTHERS),
        *((name, "bfloat16") for name in IN_BFLOAT16),
    ],
)
def test_networks_compute_what_the_export_does(name: str, dtype: str) -> None:
    parts = compiled(name, dtype)
    found = run_parts(name, parts)
    assert relative_error(found, expected(name)[1]) < TOLERANCE[dtype]


@pytest.mark.parametrize("name", ["unet_17", "vae_encoder_17", "text_gelu_18"])
def test_lowering_itself_is_exact(name: str) -> None:
    """In float32 nothing is left but another order of sums."""
    target = replace(find_target("cuda-fp16"), dtype="float32")
    parts = compile_graph(path_of(name), role_of(name), target)
    found = run_parts(name, parts, run_compiled)
    assert relative_error(found, expected(name)[1]) < 1e-5


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", UNETS + OTHERS)
def test_the_provider_has_every_operator_in_its_type(name: str, dtype: str) -> None:
    for graph, model in compiled(name, dtype).graphs.items():
        assert unsupported(model) == [], graph


@pytest.mark.parametrize("dtype", TYPES)
def test_the_bundled_unet_runs_on_our_kernels(dtype: str) -> None:
    parts = compiled("tiny-shapes/unet", dtype)
    found = Counter(
        (node.domain, node.op_type) for node in parts.graphs["body"].graph if node.op_type != "Cast"
    )
    ours = {"GroupNorm": 30, "LayerNorm": 21, "Attention": 14, "Geglu": 7}
    assert {op: count for (domain, op), count in found.items() if domain} == ours
    assert found["", "Conv"] == 28
    assert found["", "Softmax"] == 0
    # Two for each convolution, but none at the borders of the graph.
    assert found["", "Transpose"] == 2 * 28 - 2
    assert parts.coverage.share > 0.999


def test_a_time_bias_goes_into_the_norm_behind_it() -> None:
    body = compiled("unet_17", "float16").graphs["body"].graph
    biased = [node for node in body if node.op_type == "GroupNorm" and len(node.inputs) == 4]
    assert len(biased) == 8
    assert all(node.inputs[3].dtype == node.inputs[0].dtype for node in biased)
    assert "Unsqueeze" not in {node.op_type for node in body}


def test_head_widths_without_a_kernel_are_named() -> None:
    """tiny_sd has 8 and 16 columns in a head; for 8 there is no kernel."""
    parts = compiled("tiny_sd/unet", "float16")
    found = Counter(node.op_type for node in parts.graphs["body"].graph)
    assert found["Attention"] == 2
    assert found["Softmax"] == 6
    reasons = {left.reason for left in parts.coverage.leftovers if left.op == "MatMul"}
    assert reasons == {
        "head width 8, kernels are for 16, 24, 32, 40, 64, 80, 160, 512",
    }
    # What is written out computes in float32.
    softmax = next(n for n in parts.graphs["body"].graph if n.op_type == "Softmax")
    assert softmax.inputs[0].dtype.name == "FLOAT"


def test_operator_sets() -> None:
    """bfloat16 convolutions want set 22; nothing else may be newer than 18."""
    sets = {
        (dtype, graph): model.graph.opset_imports[""]
        for dtype in TYPES
        for graph, model in compiled("unet_dynamo_23", dtype).graphs.items()
    }
    assert sets.pop(("bfloat16", "body")) == 22
    assert set(sets.values()) == {18}
    assert compiled("unet_17", "float16").graphs["body"].graph.opset_imports[""] == 17


def test_borders_stay_as_they_were_exported() -> None:
    for dtype in TYPES:
        body = compiled("tiny-shapes/unet", dtype).graphs["body"].graph
        types = {value.name: value.dtype.name for value in (*body.inputs, *body.outputs)}
        assert types["sample"] == types["out_sample"] == "FLOAT"
        assert types["time_features"] == types["prompt.0"] == dtype.upper()
