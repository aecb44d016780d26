"""textopia_fast.Pipeline, its engine in the cache."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.text_to_image_sd15.case import GUIDANCE, PIXELS, PROMPT, Case

NAME = "textopia_fast bf16"


def load(case: Case) -> Callable[[], np.ndarray]:
    import textopia_fast as tx

    pipe = tx.Pipeline.from_pretrained(case.directory, precision="bf16", threads=case.threads)
    latents = case.latents()

    def picture() -> np.ndarray:
        return pipe(
            PROMPT,
            height=PIXELS,
            width=PIXELS,
            num_inference_steps=case.steps,
            guidance_scale=GUIDANCE,
            latents=latents,
            output_type="np",
        ).images

    return picture
