"""Inpainting at full resolution: cut the masked region out, paint it large, put it back.

Sizes, filling and rounding follow diffusers' `padding_mask_crop`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .checks import check_integer, refuse
from .errors import InputImageError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Crop", "read_crop"]

MAX_PADDING = 4096


@dataclass(frozen=True, eq=False)
class Crop:
    """A region of a picture that is painted in another size.

    Attributes:
        box: Left, top, right, bottom in pixels of the picture.
        picture, mask: The region's pixels, in the size that is painted.
        whole, whole_mask: What it was cut from.
    """

    box: tuple[int, int, int, int]
    picture: Image
    mask: Image
    whole: Image
    whole_mask: Image

    def put_back(self, painted: Image) -> Image:
        """The whole picture with `painted` in the region, where the mask says so."""
        from PIL import Image, ImageOps

        left, top, right, bottom = self.box
        rest = Image.new("RGBa", self.whole.size)
        keeps = ImageOps.invert(self.whole_mask.convert("L"))
        rest.paste(self.whole.convert("RGBA").convert("RGBa"), mask=keeps)
        result = Image.new("RGBA", self.whole.size)
        result.paste(_covering(painted, right - left, bottom - top), (left, top))
        result = result.convert("RGB").convert("RGBA")
        result.alpha_composite(rest.convert("RGBA"))
        return result.convert("RGB")


def read_crop(image: Any, mask_image: Any, padding: Any, height: int, width: int) -> Crop:
    """The masked region of `image`, and `padding` pixels around it, in height x width pixels.

    Raises:
        InvalidRequestError: `padding` is no number of pixels.
        InputImageError: Not one PIL image and one PIL mask of the same size, or nothing is masked.
    """
    from PIL import Image

    padding = check_integer("padding_mask_crop", padding, 0, MAX_PADDING)
    for name, value in (("image", image), ("mask_image", mask_image)):
        if not isinstance(value, Image.Image):
            refuse(name, value, "is one PIL image with padding_mask_crop", kind=InputImageError)
    if image.size != mask_image.size:
        raise InputImageError(
            f"mask_image: {mask_image.size} pixels, allowed with padding_mask_crop are those of "
            f"the image, {image.size}.",
            param="mask_image",
        )
    box = _region(np.asarray(mask_image.convert("L")) > 0, padding, width / height)
    picture, mask = (
        _filling(value.crop(box), width, height) for value in (image.convert("RGB"), mask_image)
    )
    return Crop(box, picture, mask, image, mask_image)


def _region(masked: np.ndarray, padding: int, ratio: float) -> tuple[int, int, int, int]:
    """The box around what is masked, grown by `padding` and then to width / height = `ratio`."""
    height, width = masked.shape
    columns, rows = np.flatnonzero(masked.any(0)), np.flatnonzero(masked.any(1))
    if not columns.size:
        raise InputImageError(
            "mask_image: nothing is masked, which padding_mask_crop needs.", param="mask_image"
        )
    left, right = max(columns[0] - padding, 0), min(columns[-1] + 1 + padding, width)
    top, bottom = max(rows[0] - padding, 0), min(rows[-1] + 1 + padding, height)
    if (right - left) / (bottom - top) > ratio:
        missing = int((right - left) / ratio - (bottom - top))
        top, bottom = _grown(int(top), int(bottom), missing, height)
    else:
        missing = int((bottom - top) * ratio - (right - left))
        left, right = _grown(int(left), int(right), missing, width)
    return int(left), int(top), int(right), int(bottom)


def _grown(start: int, end: int, missing: int, limit: int) -> tuple[int, int]:
    """An interval `missing` longer on both sides, moved and then cut to lie in 0..limit."""
    start, end = start - missing // 2, end + missing - missing // 2
    if end >= limit:
        start, end = start - (end - limit), limit
    if start < 0:
        start, end = 0, end - start
    return start, min(end, limit)


def _fitted(image: Image, width: int, height: int, covers: bool) -> tuple[Image, Image, int, int]:
    """(an RGB canvas, `image` resized in its proportions and put on its middle, x, y)."""
    from PIL import Image as Pil

    ratio, own = width / height, image.width / image.height
    by_width = ratio > own if covers else ratio < own
    size = (
        width if by_width else image.width * height // image.height,
        image.height * width // image.width if by_width else height,
    )
    resized = image.resize(size, resample=Pil.Resampling.LANCZOS)
    canvas = Pil.new("RGB", (width, height))
    x, y = width // 2 - size[0] // 2, height // 2 - size[1] // 2
    canvas.paste(resized, (x, y))
    return canvas, resized, x, y


def _covering(image: Image, width: int, height: int) -> Image:
    return _fitted(image, width, height, covers=True)[0]


def _filling(image: Image, width: int, height: int) -> Image:
    """`image` within width x height, the bars beside it filled with its outermost pixels."""
    canvas, inner, x, y = _fitted(image, width, height, covers=False)
    if y > 0:
        for edge, at in ((0, 0), (inner.height, y + inner.height)):
            canvas.paste(inner.resize((width, y), box=(0, edge, width, edge)), (0, at))
    elif x > 0:
        for edge, at in ((0, 0), (inner.width, x + inner.width)):
            canvas.paste(inner.resize((x, height), box=(edge, 0, edge, height)), (at, 0))
    return canvas
