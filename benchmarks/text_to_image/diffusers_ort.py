"""diffusers' pipeline class and scheduler, the networks in Python ONNX Runtime sessions."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.text_to_image.case import GUIDANCE, PROMPT, STEPS, Case
from benchmarks.timing import require

NAME = "diffusers + onnxruntime"
COLD = f"""
import json, sys
from pathlib import Path
import diffusers
import torch
from tests.support import diffusers_ort
config = json.loads((Path(sys.argv[1]) / "scheduler" / "scheduler_config.json").read_text())
scheduler = getattr(diffusers, config["_class_name"]).from_config(config)
pipe = diffusers_ort.load(sys.argv[1], scheduler)
generator = torch.Generator().manual_seed(int(sys.argv[2]))
pipe({PROMPT!r}, num_inference_steps={STEPS}, guidance_scale={GUIDANCE}, generator=generator)
"""


def load(case: Case) -> Any:
    require("torch", "diffusers", "transformers", "onnxruntime")
    import diffusers
    from tests.support import diffusers_ort

    path = case.directory / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    scheduler = getattr(diffusers, config["_class_name"]).from_config(config)
    return diffusers_ort.load(case.directory, scheduler, case.threads)


def make(case: Case) -> Callable[[], np.ndarray]:
    pipe = load(case)
    import torch

    def run() -> np.ndarray:
        return pipe(
            PROMPT,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            num_images_per_prompt=case.images,
            generator=[torch.Generator().manual_seed(seed) for seed in case.seeds],
            output_type="np",
        ).images

    return run
