"""OpenVINO GenAI's Text2ImagePipeline, static shapes, its compiled models in a cache."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.sd15.openvino_bf16 import settings
from benchmarks.text_to_image_sd15.case import GUIDANCE, PIXELS, PROMPT, Case
from benchmarks.timing import NotInstalledError, require

NAME = "openvino genai bf16"


def load(case: Case) -> Callable[[], np.ndarray]:
    require("openvino", "openvino_genai", "openvino_tokenizers")
    folder = case.directory / "openvino"
    if not folder.is_dir():
        raise NotInstalledError("no model: make it with benchmarks/export_openvino.py")
    import openvino
    import openvino_genai

    class Given(openvino_genai.Generator):
        """Gives the start noise; nothing else draws."""

        def __init__(self) -> None:
            openvino_genai.Generator.__init__(self)

        def randn_tensor(self, shape: openvino.Shape) -> openvino.Tensor:
            return openvino.Tensor(case.latents().reshape(tuple(shape)))

    pipe = openvino_genai.Text2ImagePipeline(folder)
    pipe.reshape(1, PIXELS, PIXELS, GUIDANCE)
    pipe.compile("CPU", **settings(case.threads), CACHE_DIR=str(folder / "cache"))

    def picture() -> np.ndarray:
        tensor = pipe.generate(
            PROMPT,
            height=PIXELS,
            width=PIXELS,
            num_inference_steps=case.steps,
            guidance_scale=GUIDANCE,
            generator=Given(),
        )
        return tensor.data.astype(np.float32) / 255

    return picture
