"""The bundled model draws what was asked for in every precision; a guard with few prompts."""

from pathlib import Path

import numpy as np
import pytest

import textopia_fast as tx
from evaluate import accuracies, held_out_prompts
from textopia_fast import _core

COUNT = 8


UNITS = {"bf16": _core.active_matrix_unit(), "int8": _core.int8_unit()}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.mark.parametrize("precision", UNITS)
def test_all_attributes(precision: str, cache: Path) -> None:
    if UNITS[precision] == "scalar":
        pytest.skip(f"no unit for {precision} here")
    pipe = tx.Pipeline.from_pretrained("tiny-shapes", precision=precision, cache_dir=cache)
    scenes, prompts = held_out_prompts(COUNT)
    out = pipe(prompts, num_inference_steps=20, guidance_scale=4.0, seed=1, output_type="np")
    pictures = np.round(255 * out.images).astype(np.uint8)
    # measured: 40 of 40, as in float32
    assert accuracies(scenes, pictures)["all"] == 1.0
