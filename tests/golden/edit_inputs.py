"""The pictures and masks that image-to-image and inpainting are tested with, made from formulas."""

from __future__ import annotations

import numpy as np

PROMPTS = ["a red circle on a blue background", "a painting of a small boat, night"]
NEGATIVE = ["blurry dark", "photo"]
SEED = 11
STEPS = 10
STRENGTHS = {"image": (0.35, 0.8), "inpaint": (0.6, 1.0)}
SD = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
_LEADING = {"timestep_spacing": "leading", "steps_offset": 1}
# sampler: class, its settings
SCHEDULERS = {
    "euler": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", {"timestep_spacing": "linspace"}),
    "ddim": (
        "DDIMScheduler",
        {"clip_sample": False, "set_alpha_to_one": False, **_LEADING},
    ),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "heun": ("HeunDiscreteScheduler", {"timestep_spacing": "linspace"}),
    "ddpm": ("DDPMScheduler", {"clip_sample": False, **_LEADING}),
}


def picture(k: int, height: int = 64, width: int = 64) -> np.ndarray:
    """uint8 [height, width, 3]: smooth colours, another picture for each k."""
    y, x = np.mgrid[0:height, 0:width] / 64.0
    channels = [
        0.5 + 0.4 * np.sin(3 * x + 2 * y + k + c) * np.cos((c + 1) * y - k) for c in range(3)
    ]
    return np.round(255 * np.stack(channels, -1)).astype(np.uint8)


def mask(k: int, height: int = 64, width: int = 64) -> np.ndarray:
    """uint8 [height, width]: 255 in an ellipse, which is to be painted anew."""
    y, x = np.mgrid[0:height, 0:width]
    centre_y, centre_x = height * (0.4 + 0.1 * k), width * 0.5
    inside = ((y - centre_y) / (height * 0.3)) ** 2 + ((x - centre_x) / (width * 0.35)) ** 2 < 1
    return np.where(inside, 255, 0).astype(np.uint8)
