"""Makes tests/golden/tiny_sd_edits.npz: diffusers' image-to-image and inpainting, tiny model.

    python tests/golden/make_tiny_sd_edits.py     # needs torch, diffusers, transformers

As make_tiny_sd_images.py: the torch networks that make_tiny_sd.py exported, two prompts with their
own input pictures, one generator per picture, every fourth pixel of every fourth row as
round(65535 * value). The file holds `cases` (JSON), `images` uint16 [case, 2, 16, 16, 3] and
`provenance` (JSON).
"""

from __future__ import annotations

import json
import platform
import tempfile
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers
from edit_inputs import NEGATIVE, PROMPTS, SCHEDULERS, SD, SEED, STEPS, STRENGTHS, mask, picture
from make_tiny_sd import HERE, build
from PIL import Image

FILE = HERE / "tiny_sd_edits.npz"
STRIDE = 4
CLASSES = {
    "image": diffusers.StableDiffusionImg2ImgPipeline,
    "inpaint": diffusers.StableDiffusionInpaintPipeline,
}


def edit(pipe, sampler: str, kind: str, strength: float) -> np.ndarray:
    """float32 [2, 64, 64, 3] in [0, 1]."""
    class_name, settings = SCHEDULERS[sampler]
    pipe.scheduler = getattr(diffusers, class_name)(**SD, **settings)
    extra = {}
    if kind == "inpaint":
        extra["mask_image"] = [Image.fromarray(mask(k)) for k in range(2)]
        extra["height"] = extra["width"] = 64
    return pipe(
        PROMPTS,
        image=[Image.fromarray(picture(k)) for k in range(2)],
        negative_prompt=NEGATIVE,
        strength=strength,
        num_inference_steps=STEPS,
        generator=[torch.Generator().manual_seed(SEED + k) for k in range(2)],
        output_type="np",
        **extra,
    ).images


def main() -> None:
    cases, pictures = [], []
    with tempfile.TemporaryDirectory() as scratch:
        text_to_image = build(Path(scratch) / "tokenizer")
        for kind, cls in CLASSES.items():
            pipe = cls(**text_to_image.components, requires_safety_checker=False)
            pipe.set_progress_bar_config(disable=True)
            for sampler in SCHEDULERS:
                for strength in STRENGTHS[kind]:
                    image = edit(pipe, sampler, kind, strength)
                    cases.append({"kind": kind, "sampler": sampler, "strength": strength})
                    pictures.append(image[:, ::STRIDE, ::STRIDE])
    provenance = {
        "made_by": "tests/golden/make_tiny_sd_edits.py",
        "stride": STRIDE,
        "python": platform.python_version(),
        **{module.__name__: module.__version__ for module in (torch, diffusers, transformers, np)},
    }
    stored = np.round(np.stack(pictures) * 65535).astype(np.uint16)
    np.savez_compressed(
        FILE, cases=json.dumps(cases), provenance=json.dumps(provenance), images=stored
    )
    print(f"{FILE.name}: {len(cases)} cases, {FILE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
