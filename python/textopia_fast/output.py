"""What a call of the pipeline returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Output"]


@dataclass(frozen=True, eq=False)  # arrays have no one answer to ==
class Output:
    """What a call returns.

    Attributes:
        images: A list of PIL images, or float32 [N, H, W, 3] in 0..1 ("np"), or latents [N, C,
            h, w] ("latent", "dlpack").
        seeds: The seed that makes each image alone; empty where the noise was not that of seeds.
        timings: Milliseconds per stage: "text_encoder", "vae_encoder" (with an image), "denoise",
            "vae_decoder", "total".
        parameters: What the call was made with, by name, every default filled in: the texts of each
            image, "num_inference_steps" (those made), "guidance_scale", "guidance_rescale",
            "guidance_interval", "height", "width", "sampler", "sampler_options", "schedule" (None:
            the model's own), "sigmas", "noise", and "strength" with an image.
    """

    images: Any
    seeds: tuple[int, ...]
    timings: Mapping[str, float]
    parameters: Mapping[str, Any]
