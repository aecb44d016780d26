"""textopia_fast.Pipeline, its engine in the cache."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.engine_load.case import GUIDANCE, PROMPT, STEPS, Case

NAME = "textopia_fast bf16"
PACKAGES = ("textopia_fast",)


def load(case: Case) -> Callable[[], np.ndarray]:
    import textopia_fast as tx

    pipe = tx.Pipeline.from_pretrained(case.directory, precision="bf16", threads=case.threads)

    def picture() -> np.ndarray:
        return pipe(
            PROMPT,
            height=512,
            width=512,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            sampler="ddim",
            latents=case.latents(),
            output_type="np",
        ).images

    return picture
