"""textopia_fast.Pipeline."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import textopia_fast as tx
from benchmarks.text_to_image.case import GUIDANCE, PROMPT, STEPS, Case

NAME = "textopia_fast"
# Run by a fresh interpreter: import, load, one picture. Arguments: directory, seed.
COLD = f"""
import sys
import textopia_fast as tx
pipe = tx.Pipeline.from_pretrained(sys.argv[1])
pipe({PROMPT!r}, num_inference_steps={STEPS}, guidance_scale={GUIDANCE}, seed=int(sys.argv[2]))
"""


def load(case: Case) -> tx.Pipeline:
    return tx.Pipeline.from_pretrained(
        case.directory, threads=case.threads, images_per_run=case.images_per_run
    )


def make(case: Case) -> Callable[[], np.ndarray]:
    pipe = load(case)

    def run() -> np.ndarray:
        return pipe(
            PROMPT,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            num_images_per_prompt=case.images,
            seed=case.seeds,
            output_type="np",
        ).images

    return run
