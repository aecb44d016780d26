"""Requests that start from a picture: what was given, the latents that sampling starts from, and
what stays of the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _core
from .arrays import to_float32
from .checks import check_number, refuse
from .cropping import Crop, read_crop
from .errors import InputImageError, InvalidRequestError, UnsupportedModelError
from .input_images import read_masks, read_pictures, resize_nearest
from .noise_streams import GeneratorStream, Stream, draw
from .schedulers.config import Plan
from .stages import Encoder

__all__ = ["Edit", "need_encoder", "read_edit", "shorten"]

# diffusers' defaults.
_STRENGTH = 0.8
_INPAINT_STRENGTH = 1.0


@dataclass(frozen=True, eq=False)
class Edit:
    """A checked input picture.

    Attributes:
        pictures: float32 [N, 3, H, W] in -1..1.
        rows: int64 [B]: the picture of each image that is made.
        strength: In (0, 1]: the part of the schedule that runs.
        masks: bool [B, 1, H, W]: true where to paint; None for image-to-image.
        keeps_rest: What is not masked stays the input picture to the bit.
        mask_count: How many masks were given.
        masked_latents: Latents of the masked pictures, when the caller gives them.
        crop: The region that is painted, when it is not the whole picture.
    """

    pictures: np.ndarray
    rows: np.ndarray
    strength: float
    masks: np.ndarray | None = None
    keeps_rest: bool = True
    mask_count: int = 1
    masked_latents: np.ndarray | None = None
    crop: Crop | None = None

    @property
    def starts_from_noise(self) -> bool:
        """Inpainting with strength 1 starts from noise alone, as in diffusers."""
        return self.masks is not None and self.strength == 1.0

    def encode(
        self, encoder: Encoder, stream: Stream, cancel: _core.CancelToken | None
    ) -> np.ndarray:
        """Latents of the pictures, float32 [B, C, H/f, W/f]; takes the first draw of `stream`."""
        posterior = encoder.encode(self.pictures, cancel)
        mean = posterior.mean[self.rows]
        if posterior.std is None:
            return encoder.scale(mean)
        return encoder.scale(mean + posterior.std[self.rows] * self._draw(stream, mean.shape))

    def _draw(self, stream: Stream, shape: tuple[int, ...], at_least: int = 1) -> np.ndarray:
        """Noise of a posterior, [B, ...]: an image's own where it has a seed.

        Generators draw as in diffusers: one for the batch, or the caller's in inpainting, for the
        pictures that were given (`at_least` so many), which the images of a picture share.
        """
        is_list = isinstance(stream, GeneratorStream) and self.masks is not None
        if not (stream.is_shared or is_list):
            return draw(stream, shape)
        count = max(len(self.pictures), at_least)
        return draw(stream, (count, *shape[1:]))[np.arange(shape[0]) * count // shape[0]]

    def start(
        self, known: np.ndarray | None, noise: np.ndarray, sigma: float, initial_scale: float
    ) -> np.ndarray:
        """The start in the frame of every program, x0 + sigma*eps."""
        if known is None or self.starts_from_noise:
            return noise * np.float32(initial_scale)
        return known + np.float32(sigma) * noise

    def small_masks(self, height: int, width: int) -> np.ndarray:
        """The masks of inpainting in the size of latents, float32 [B, 1, height, width]."""
        return resize_nearest(self._masks(), height, width).astype(np.float32)

    def encode_masked(
        self,
        encoder: Encoder,
        shape: tuple[int, ...],
        stream: Stream,
        cancel: _core.CancelToken | None,
        *,
        is_seen: bool,
    ) -> np.ndarray | None:
        """Latents of the pictures without what is masked, in `shape`; takes one draw of `stream`.

        diffusers encodes them also where nobody looks (`is_seen` false): then only the draw is
        made, which keeps the generators in step.
        """
        if self.masked_latents is not None:
            return _filled("masked_image_latents", self.masked_latents, shape)
        noise = self._draw(stream, shape, self.mask_count) if encoder.has_variance else None
        if not is_seen:
            return None
        posterior = encoder.encode(self.pictures[self.rows] * ~self._masks(), cancel)
        if noise is None or posterior.std is None:
            return encoder.scale(posterior.mean)
        return encoder.scale(posterior.mean + posterior.std * noise)

    def finish(self, pictures: np.ndarray) -> np.ndarray:
        """`pictures`, float32 [B, H, W, 3] in 0..1, with the input where nothing was to change."""
        if self.masks is None or not self.keeps_rest or self.crop is not None:
            return pictures
        inputs = (self.pictures * np.float32(0.5) + np.float32(0.5)).clip(0.0, 1.0)
        rest = inputs.transpose(0, 2, 3, 1)[self.rows]
        return np.where(self.masks.transpose(0, 2, 3, 1), pictures, rest)

    def _masks(self) -> np.ndarray:
        if self.masks is None:
            raise InvalidRequestError("mask_image: there is none.", param="mask_image")
        return self.masks


def read_edit(
    image: Any,
    mask_image: Any,
    strength: Any,
    keeps_rest: bool,
    size: tuple[int, int],
    factor: int,
    prompt_count: int,
    images_per_prompt: int,
    padding: Any = None,
    masked_latents: Any = None,
) -> Edit | None:
    """What the call gives to start from, or None for text-to-image.

    Args:
        image: As of `read_pictures`: one, one per prompt, or one per image.
        mask_image: As of `read_masks`, in the same numbers; or None.
        strength: None for 0.8, with a mask for 1.
        keeps_rest: As of `Edit`.
        size: Height and width of the result.
        factor: Pixels per latent.
        prompt_count, images_per_prompt: Of the call.
        padding: Paints only what is masked and so many pixels around it; or None.
        masked_latents: Of inpainting networks, [N, C, h, w], instead of encoded ones; or None.

    Raises:
        InputImageError: As of `read_pictures`, or a number of pictures that fits nothing.
        InvalidRequestError: A bad strength, or one without a picture.
    """
    if not isinstance(keeps_rest, bool):
        refuse("keep_unmasked", keeps_rest, "are True, False")
    if image is None:
        _expect_none(
            "an image",
            strength=strength,
            mask_image=mask_image,
            padding_mask_crop=padding,
            masked_image_latents=masked_latents,
        )
        return None
    default = _STRENGTH if mask_image is None else _INPAINT_STRENGTH
    amount = default if strength is None else check_number("strength", strength)
    if not 0.0 < amount <= 1.0:
        refuse("strength", strength, "are numbers > 0, up to 1")
    crop = None
    if mask_image is None:
        _expect_none("a mask_image", padding_mask_crop=padding, masked_image_latents=masked_latents)
    elif padding is not None:
        crop = read_crop(image, mask_image, padding, *size)
        image, mask_image = crop.picture, crop.mask
    pictures = read_pictures("image", image, *size, factor)
    rows = _rows("image", len(pictures), prompt_count, images_per_prompt)
    if mask_image is None:
        return Edit(pictures, rows, amount)
    masks = read_masks("mask_image", mask_image, *size)
    mask_count = len(masks)
    masks = masks[_rows("mask_image", mask_count, prompt_count, images_per_prompt)]
    if masked_latents is not None:
        masked_latents = to_float32(masked_latents, "masked_image_latents")
    return Edit(pictures, rows, amount, masks, keeps_rest, mask_count, masked_latents, crop)


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


def _expect_none(needed: str, **given: Any) -> None:
    for name, value in given.items():
        if value is not None:
            refuse(name, value, f"is none without {needed}")


def _filled(name: str, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`values` [N, ...] repeated to `shape` [B, ...], as diffusers repeats them."""
    count = values.shape[0] if values.ndim else 0
    if values.shape[1:] != shape[1:] or not count or shape[0] % count:
        raise InvalidRequestError(
            f"{name}: shape {values.shape}, allowed for this request is {shape}.", param=name
        )
    return np.tile(values, (shape[0] // count, 1, 1, 1))


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
