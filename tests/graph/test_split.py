"""The loop-invariant split: three graphs that together compute what one did."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from tests.graph.running import (
    EXPORTS,
    compiled_export,
    inputs_of,
    operators,
    run_compiled,
    run_export,
)
from textopia_fast.graph.compile import Compiled
from textopia_fast.graph.split import PROMPT_INPUTS

UNETS = ["unet_baddbmm_14", "unet_17", "unet_dynamo_18", "unet_dynamo_23", "unet_xl_17"]


def compiled_unet(name: str, target: str = "reference") -> Compiled:
    return compiled_export(name, "unet", target)


def run_split(compiled: Compiled, feeds: dict[str, np.ndarray], rows: int) -> np.ndarray:
    """The three graphs in turn; the timestep has one row for each of `rows` images."""
    steps = np.full(rows, feeds["timestep"].reshape(-1)[0], feeds["timestep"].dtype)
    values = dict(feeds) | {"timestep": steps}
    for name in ("time", "prompt"):
        values |= run_compiled(compiled.graphs[name], values)
    return run_compiled(compiled.graphs["body"], values)["out_sample"]


@pytest.mark.parametrize("name", UNETS)
def test_the_parts_compute_what_the_whole_did(name: str) -> None:
    feeds = inputs_of(name, 2, 8, 12, 5)
    expected = run_export(EXPORTS / f"{name}.onnx", feeds)[0]
    result = run_split(compiled_unet(name), feeds, 2)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", UNETS)
def test_a_graph_of_standard_operators_is_split_alike(name: str) -> None:
    """What runs where our operators do not: ONNX Runtime's own kernels, float32."""
    compiled = compiled_unet(name, "cpu-fp32")
    feeds = inputs_of(name, 2, 8, 12, 5)
    expected = run_export(EXPORTS / f"{name}.onnx", feeds)[0]
    values = dict(feeds) | {"timestep": np.repeat(feeds["timestep"].reshape(-1), 2)}
    for part in ("time", "prompt", "body"):
        values |= run_standard(compiled.graphs[part], values)
    np.testing.assert_allclose(values["out_sample"], expected, rtol=0, atol=1e-5)
    assert compiled.coverage.share == 0


def run_standard(model: ir.Model, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    proto = ir.to_proto(model)
    feeds = {value.name: values[value.name] for value in proto.graph.input}
    names = [value.name for value in proto.graph.output]
    return dict(zip(names, run_export(proto, feeds), strict=True))


@pytest.mark.parametrize("name", UNETS)
def test_both_halves_of_guidance_share_one_row_per_image(name: str) -> None:
    """[negative, positive] prompts of two images, and the two latents once."""
    feeds = inputs_of(name, 4, 8, 12, 5)
    shared = feeds | {"sample": feeds["sample"][:2]}
    feeds["sample"] = np.tile(shared["sample"], (2, 1, 1, 1))
    expected = run_export(EXPORTS / f"{name}.onnx", feeds)[0]
    result = run_split(compiled_unet(name), shared, 2)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-5)


def test_what_is_in_each_part() -> None:
    compiled = compiled_unet("unet_17")
    body, time, prompt = (compiled.graphs[key].graph for key in ("body", "time", "prompt"))
    assert [value.name for value in time.inputs] == ["timestep"]
    assert [value.name for value in prompt.inputs] == ["encoder_hidden_states"]
    assert [value.name for value in body.inputs] == [
        "sample",
        "time_features",
        *(f"prompt.{index}" for index in range(4)),
    ]
    # Every projection of the timestep has left the body, in two layers and one per residual block.
    assert operators(time).count("tx.Linear") == 10
    assert operators(prompt) == ["tx.Linear"] * 4
    counts = compiled.split
    assert (counts["time"], counts["prompt"]) == (19, 4)
    # conv_in, the first residual block, projection in, the first self-attention.
    assert counts["prefix"] == 16
    assert operators(body).count("tx.Attention") == 8


def test_a_prefix_is_not_shared_where_a_target_forbids_it() -> None:
    compiled = compiled_unet("unet_17", "cuda-bf16")
    assert compiled.split["prefix"] == 0
    assert not {"Range", "Mod"} & set(operators(compiled.graphs["body"].graph))


def test_the_time_graph_takes_all_steps_at_once() -> None:
    compiled = compiled_unet("unet_17")
    steps = np.array([999, 500, 0])
    together = run_compiled(compiled.graphs["time"], {"timestep": steps})["time_features"]
    assert together.shape[0] == 3
    for index, step in enumerate(steps):
        alone = run_compiled(compiled.graphs["time"], {"timestep": np.array([step])})
        np.testing.assert_allclose(alone["time_features"][0], together[index], atol=1e-6)


def test_images_at_different_steps_share_a_run() -> None:
    """What a scalar timestep forbids in the export is possible once it has left the loop."""
    compiled = compiled_unet("unet_17")
    feeds = inputs_of("unet_17", 2, 8, 8, 3)
    values = dict(feeds) | {"timestep": np.array([900, 20])}
    for name in ("time", "prompt"):
        values |= run_compiled(compiled.graphs[name], values)
    together = run_compiled(compiled.graphs["body"], values)["out_sample"]
    for index, step in enumerate((900, 20)):
        one = {key: array[index : index + 1] for key, array in feeds.items() if key != "timestep"}
        alone = run_export(EXPORTS / "unet_17.onnx", one | {"timestep": np.array([step])})[0]
        np.testing.assert_allclose(together[index], alone[0], rtol=0, atol=1e-5)


def test_sdxl_keeps_only_the_sum_of_embeddings_in_the_loop() -> None:
    compiled = compiled_unet("unet_xl_17")
    prompt = compiled.graphs["prompt"].graph
    assert {value.name for value in prompt.inputs} == set(PROMPT_INPUTS)
    assert operators(compiled.graphs["time"].graph).count("tx.Linear") == 2
