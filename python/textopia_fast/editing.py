"""Requests that start from a picture: what was given, and the latents that sampling starts from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _core
from .checks import check_number, refuse
from .errors import InputImageError, InvalidRequestError, UnsupportedModelError
from .input_images import read_pictures
from .noise import draw
from .samplers.scheduler_config import Plan
from .stages import Encoder

__all__ = ["Edit", "need_encoder", "read_edit", "shorten"]

_DEFAULT_STRENGTH = 0.8


@dataclass(frozen=True, eq=False)
class Edit:
    """A checked input picture.

    Attributes:
        pictures: float32 [N, 3, H, W] in -1..1.
        rows: int64 [B]: the picture of each image that is made.
        strength: In (0, 1]: the part of the schedule that runs.
    """

    pictures: np.ndarray
    rows: np.ndarray
    strength: float

    def encode(
        self, encoder: Encoder, stream: _core.NoiseStream, cancel: _core.CancelToken | None
    ) -> np.ndarray:
        """Latents of the pictures, float32 [B, C, H/f, W/f]; the first draw of `stream`."""
        posterior = encoder.encode(self.pictures, cancel)
        mean = posterior.mean[self.rows]
        if posterior.std is None:
            return encoder.scale(mean)
        return encoder.scale(mean + posterior.std[self.rows] * draw(stream, mean.shape))


def read_edit(
    image: Any,
    strength: Any,
    size: tuple[int, int],
    factor: int,
    prompt_count: int,
    images_per_prompt: int,
) -> Edit | None:
    """What the call gives to start from, or None for text-to-image.

    Args:
        image: As of `read_pictures`: one, one per prompt, or one per image.
        strength: None for 0.8.
        size: Height and width of the result.
        factor: Pixels per latent.
        prompt_count, images_per_prompt: Of the call.

    Raises:
        InputImageError: As of `read_pictures`, or a number of pictures that fits nothing.
        InvalidRequestError: A bad strength, or one without a picture.
    """
    if image is None:
        if strength is not None:
            refuse("strength", strength, "is none without an image")
        return None
    amount = _DEFAULT_STRENGTH if strength is None else check_number("strength", strength)
    if not 0.0 < amount <= 1.0:
        refuse("strength", strength, "are numbers > 0, up to 1")
    pictures = read_pictures("image", image, *size, factor)
    rows = _rows("image", len(pictures), prompt_count, images_per_prompt)
    return Edit(pictures, rows, amount)


def need_encoder(encoder: Encoder | None) -> Encoder:
    """`encoder`, or UnsupportedModelError where the model has none."""
    if encoder is None:
        raise UnsupportedModelError(
            "image: the model has no vae_encoder, which image-to-image needs.",
            hint="Export the VAE encoder, too.",
            component="vae_encoder",
        )
    return encoder


def shorten(plan: Plan, strength: float) -> Plan:
    """The last part of a plan: int(steps * strength) steps (diffusers' rule).

    Raises:
        InvalidRequestError: No step would be left.
    """
    steps = plan.schedule.step_count
    kept = min(int(steps * strength), steps)
    if kept < 1:
        raise InvalidRequestError(
            f"strength: {strength!r} of {steps} steps is no step, allowed is at least one.",
            hint="Raise strength or num_inference_steps.",
            param="strength",
        )
    return plan.tail(steps - kept)


def _rows(name: str, count: int, prompt_count: int, images_per_prompt: int) -> np.ndarray:
    images = prompt_count * images_per_prompt
    if count == 1:
        return np.zeros(images, np.int64)
    if count == images:
        return np.arange(images)
    if count == prompt_count:
        return np.repeat(np.arange(prompt_count), images_per_prompt)
    raise InputImageError(
        f"{name}: {count} pictures for {prompt_count} prompts and {images} images, allowed are "
        "one, one per prompt, or one per image.",
        param=name,
    )
