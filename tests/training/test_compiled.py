"""The bundled model draws what was asked for in bfloat16, too; a guard with few prompts."""

from pathlib import Path

import numpy as np
import pytest

import textopia_fast as tx
from evaluate import accuracies, held_out_prompts
from textopia_fast import _core

COUNT = 8


@pytest.mark.skipif(_core.active_matrix_unit() == "scalar", reason="needs AVX512_BF16 or AMX")
def test_all_attributes(tmp_path: Path) -> None:
    pipe = tx.Pipeline.from_pretrained("tiny-shapes", precision="bf16", cache_dir=tmp_path)
    scenes, prompts = held_out_prompts(COUNT)
    out = pipe(prompts, num_inference_steps=20, guidance_scale=4.0, seed=1, output_type="np")
    pictures = np.round(255 * out.images).astype(np.uint8)
    # measured: 40 of 40, as in float32
    assert accuracies(scenes, pictures)["all"] == 1.0
