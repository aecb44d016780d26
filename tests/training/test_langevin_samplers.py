"""The Langevin family draws what was asked for on the bundled model, with its default options.

A guard with few prompts; training/README.md has the figures of many.
"""

import numpy as np
import pytest

import textopia_fast as tx
from evaluate import accuracies, held_out_prompts

COUNT = 8
GUIDANCE = 4.0  # see training/README.md


@pytest.fixture(scope="module")
def pipe():
    return tx.Pipeline.from_pretrained("tiny-shapes")


@pytest.mark.parametrize(
    "sampler", ["annealed_langevin", "predictor_corrector", "underdamped_langevin"]
)
def test_all_attributes(pipe, sampler):
    scenes, prompts = held_out_prompts(COUNT)
    out = pipe(
        prompts,
        num_inference_steps=20,
        guidance_scale=GUIDANCE,
        sampler=sampler,
        seed=1,
        output_type="np",
    )
    pictures = np.round(255 * out.images).astype(np.uint8)
    # a broken sampler gets next to none right; one wrong picture may happen (figures: 96 to 100 %)
    assert accuracies(scenes, pictures)["all"] >= (COUNT - 1) / COUNT
