"""A Denoiser over the split U-Net of SDXL, whose prompt has three inputs, against the export."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import textopia_fast as tx
from tests.graph.running import EXPORTS, compiled_export
from textopia_fast._ort import create_session
from textopia_fast.denoiser import Hoisted
from textopia_fast.graph.engine import write_graphs

NAME = "unet_xl_17"
SHAPES = {"encoder_hidden_states": (5, 10), "text_embeds": (7,), "time_ids": (6,)}


def prompt(rng: np.random.Generator, images: int) -> dict[str, np.ndarray]:
    return {
        name: rng.standard_normal((images, *shape), np.float32) for name, shape in SHAPES.items()
    }


def test_three_inputs_of_the_prompt_reach_the_graphs(tmp_path: Path) -> None:
    compiled = compiled_export(NAME, "unet")
    graphs = {
        name: create_session(path, threads=1)
        for name, path in write_graphs(compiled, tmp_path).items()
    }
    split = tx.Denoiser(
        graphs["body"],
        inputs={"noise_level": "time_features"},
        hoisted=Hoisted(
            graphs["time"], graphs["prompt"], shares_prefix=compiled.split["prefix"] > 0
        ),
    )
    whole = tx.Denoiser(EXPORTS / f"{NAME}.onnx", threads=1)
    assert set(split.conditioning_names) == set(whole.conditioning_names) == set(SHAPES)
    rng = np.random.default_rng(0)
    x, cond, uncond = rng.standard_normal((2, 4, 8, 12), np.float32), prompt(rng, 2), prompt(rng, 2)
    table = tx.samplers.TrainingTable(1000, 0.00085, 0.012, "scaled_linear")
    schedule = tx.schedules.discrete(3, table)
    found, expected = (
        tx.sample(denoiser, x, denoiser.trace("ddim", schedule), cond, uncond, guidance=3.0)
        for denoiser in (split, whole)
    )
    # float32 sums in another order, over three steps with guidance
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
