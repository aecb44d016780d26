"""Makes tests/golden/tiny_sd_images.npz: pictures of diffusers' own pipeline on the tiny model.

    python tests/golden/make_tiny_sd_images.py     # needs torch, diffusers, transformers

The networks are the torch ones that make_tiny_sd.py exported, in float32 on the CPU. Each case is
two prompts with a negative prompt and one generator per picture (seed + k). What is stored of a
picture is every fourth pixel of every fourth row, as round(65535 * value): enough to tell any two
samplers apart. (Pairs that the program names as alike are equal by mathematics: one step of Euler
is one step of Heun, DDPM is Euler ancestral on the same timesteps, and so on.)

The file holds `cases` (JSON), `images` uint16 [case, 2, 16, 16, 3] and `provenance` (JSON).
"""

from __future__ import annotations

import json
import platform
import tempfile
from itertools import combinations
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers
from make_tiny_sd import HERE, build

FILE = HERE / "tiny_sd_images.npz"
PROMPTS = ["a red circle on a blue background", "a painting of a small boat, night"]
NEGATIVE = ["blurry dark", "photo"]
SEED = 7
STRIDE = 4
SD = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
LEADING = {"timestep_spacing": "leading", "steps_offset": 1}
LINSPACE = {"timestep_spacing": "linspace"}
TRAILING = {"timestep_spacing": "trailing"}
KARRAS = {"use_karras_sigmas": True}
V = {"prediction_type": "v_prediction"}
DDIM = {"clip_sample": False, "set_alpha_to_one": False}

# name: (sampler, class, its settings, eta)
SCHEDULERS: dict[str, tuple[str, str, dict, float]] = {
    "euler-linspace": ("euler", "EulerDiscreteScheduler", LINSPACE, 0.0),
    "euler-trailing": ("euler", "EulerDiscreteScheduler", TRAILING, 0.0),
    "euler-leading": ("euler", "EulerDiscreteScheduler", LEADING, 0.0),
    "euler-karras": ("euler", "EulerDiscreteScheduler", LINSPACE | KARRAS, 0.0),
    "euler_ancestral-linspace": (
        "euler_ancestral",
        "EulerAncestralDiscreteScheduler",
        LINSPACE,
        0.0,
    ),
    "euler_ancestral-leading": ("euler_ancestral", "EulerAncestralDiscreteScheduler", LEADING, 0.0),
    "ddim-leading": ("ddim", "DDIMScheduler", DDIM | LEADING, 0.0),
    "ddim-trailing": ("ddim", "DDIMScheduler", DDIM | TRAILING, 0.0),
    "ddim-linspace": ("ddim", "DDIMScheduler", DDIM | LINSPACE, 0.0),
    "ddim-leading-eta": ("ddim", "DDIMScheduler", DDIM | LEADING, 0.5),
    "ddim-linspace-eta": ("ddim", "DDIMScheduler", DDIM | LINSPACE, 0.5),
    "ddpm-leading": ("ddpm", "DDPMScheduler", {"clip_sample": False} | LEADING, 0.0),
    "ddpm-trailing": ("ddpm", "DDPMScheduler", {"clip_sample": False} | TRAILING, 0.0),
    "dpmpp_2m-linspace": ("dpmpp_2m", "DPMSolverMultistepScheduler", LINSPACE, 0.0),
    "dpmpp_2m-leading": ("dpmpp_2m", "DPMSolverMultistepScheduler", LEADING, 0.0),
    "dpmpp_2m-karras": ("dpmpp_2m", "DPMSolverMultistepScheduler", LINSPACE | KARRAS, 0.0),
    "heun-linspace": ("heun", "HeunDiscreteScheduler", LINSPACE, 0.0),
    "heun-karras": ("heun", "HeunDiscreteScheduler", LINSPACE | KARRAS, 0.0),
}
# steps, guidance: guidance 1 runs the network without a negative half
SETTINGS = [(1, 7.5), (5, 7.5), (20, 7.5), (5, 1.0)]
# the same with a network that is taken to predict v; 5 steps are enough to see a wrong conversion
V_SCHEDULERS = ["euler-linspace", "euler_ancestral-linspace", "ddim-leading", "dpmpp_2m-karras"]


def all_cases() -> list[dict]:
    cases = []

    def add(name: str, extra: dict, steps: int, guidance: float) -> None:
        sampler, class_name, config, eta = SCHEDULERS[name]
        cases.append(
            {
                "name": f"{name}{'-v' if extra else ''}-{steps}-{guidance:g}",
                "sampler": sampler,
                "scheduler": {"_class_name": class_name, **SD, **config, **extra},
                "steps": steps,
                "guidance": guidance,
                "eta": eta,
            }
        )

    for name in SCHEDULERS:
        for steps, guidance in SETTINGS:
            add(name, {}, steps, guidance)
    for name in V_SCHEDULERS:
        add(name, V, 5, 7.5)
    return cases


def picture(pipe, case: dict) -> np.ndarray:
    """float32 [2, 64, 64, 3] in [0, 1]."""
    config = {key: value for key, value in case["scheduler"].items() if key != "_class_name"}
    pipe.scheduler = getattr(diffusers, case["scheduler"]["_class_name"])(**config)
    generators = [torch.Generator().manual_seed(SEED + k) for k in range(len(PROMPTS))]
    return pipe(
        PROMPTS,
        negative_prompt=NEGATIVE,
        num_inference_steps=case["steps"],
        guidance_scale=case["guidance"],
        eta=case["eta"],
        generator=generators,
        output_type="np",
    ).images


def main() -> None:
    cases, pictures = [], []
    with tempfile.TemporaryDirectory() as scratch:
        pipe = build(Path(scratch) / "tokenizer")
        for case in all_cases():
            try:
                image = picture(pipe, case)
            except (IndexError, ValueError) as error:  # one step is more than some schedules can do
                print(f"{case['name']}: left out, diffusers raises {type(error).__name__}: {error}")
                continue
            if not np.isfinite(image).all():
                print(f"{case['name']}: left out, diffusers gives NaN")
                continue
            cases.append(case)
            pictures.append(image[:, ::STRIDE, ::STRIDE])
    for (a, image_a), (b, image_b) in combinations(zip(cases, pictures, strict=True), 2):
        distance = np.abs(image_a - image_b).max()
        if distance < 0.01:
            print(f"{a['name']} and {b['name']} differ by {distance:.4f} only")
    provenance = {
        "made_by": "tests/golden/make_tiny_sd_images.py",
        "prompts": PROMPTS,
        "negative": NEGATIVE,
        "seed": SEED,
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
