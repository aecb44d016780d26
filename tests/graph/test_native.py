"""Engines for bfloat16 run by the core's own operators, against the export in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.graph.running import EXPORTS, GOLDEN, inputs_of, relative_error, run_export
from textopia_fast import _core
from textopia_fast._ort import create_session
from textopia_fast.graph.compile import compile_graph
from textopia_fast.graph.engine import EngineDirectory, compile_directory, write_graphs
from textopia_fast.graph.targets import find_target
from textopia_fast.models import open_directory

pytestmark = pytest.mark.skipif(
    not hasattr(_core, "pack_conv"), reason="this build of the core has no fused operators"
)

# Every activation is rounded to 8 bits, some dozens of times in a row.
TOLERANCE = 0.03


def run_graph(path: Path, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = create_session(path)
    return session.run({spec.name: values[spec.name] for spec in session.inputs})


def run_unet(graphs: dict[str, Path], feeds: dict[str, np.ndarray]) -> np.ndarray:
    """The halves of guidance share the rows of `sample`."""
    images = len(feeds["sample"]) // 2
    values = dict(feeds) | {"sample": feeds["sample"][:images].copy()}
    values["timestep"] = np.repeat(feeds["timestep"].reshape(-1), images)
    for name in ("time", "prompt", "body"):
        values |= run_graph(graphs[name], values)
    return values["out_sample"]


@pytest.mark.parametrize(
    "name",
    [
        *("unet_baddbmm_14", "unet_17", "unet_dynamo_18", "unet_dynamo_23", "unet_17_fp16"),
        "unet_xl_17",
    ],
)
def test_a_unet(tmp_path: Path, name: str) -> None:
    compiled = compile_graph(EXPORTS / f"{name}.onnx", "unet", find_target("cpu-bf16"))
    graphs = write_graphs(compiled, tmp_path)
    feeds = inputs_of(name, 4, 8, 12, 5)
    feeds["sample"][2:] = feeds["sample"][:2]
    exact = run_export(EXPORTS / f"{name}.onnx", feeds)[0]
    assert relative_error(run_unet(graphs, feeds), exact) < TOLERANCE


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> EngineDirectory:
    cache = tmp_path_factory.mktemp("engines")
    return compile_directory(open_directory(GOLDEN / "tiny_sd"), "cpu-bf16", cache)


@pytest.mark.parametrize(("batch", "height", "width"), [(2, 8, 8), (4, 10, 6)])
def test_one_engine_serves_every_size(
    engine: EngineDirectory, batch: int, height: int, width: int
) -> None:
    feeds = inputs_of("tiny_sd/unet/model.onnx", batch, height, width, 7)
    feeds["sample"][batch // 2 :] = feeds["sample"][: batch // 2]
    exact = run_export(GOLDEN / "tiny_sd/unet/model.onnx", feeds)[0]
    assert relative_error(run_unet(dict(engine.parts["unet"].graphs), feeds), exact) < TOLERANCE


@pytest.mark.parametrize("part", ["vae_decoder", "vae_encoder", "text_encoder"])
def test_the_other_networks(engine: EngineDirectory, part: str) -> None:
    name = f"tiny_sd/{part}/model.onnx"
    feeds = inputs_of(name, 1, 16, 24, 9)
    exact = run_export(GOLDEN / name, feeds)
    found = run_graph(engine.parts[part].graphs["model"], feeds)
    for want, got in zip(exact, found.values(), strict=True):
        assert relative_error(got, want) < TOLERANCE
