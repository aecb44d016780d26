"""Pictures that callers give: checked, sized and turned into arrays.

Conversions follow diffusers (`VaeImageProcessor`): PIL images are resized with Lanczos, arrays by
nearest neighbour, values go to -1..1.
"""

from __future__ import annotations

import os
import sys
import warnings
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from .arrays import to_array
from .checks import shown
from .errors import InputImageError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "MAX_PIXELS",
    "fitting_size",
    "open_image",
    "read_masks",
    "read_pictures",
    "resize_nearest",
]

MAX_PIXELS = 4096 * 4096
"""Most pixels of a picture that comes in: what is larger is a mistake, or an attack on memory."""
_FORMATS = ("PNG", "JPEG", "WEBP")
_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_SLACK = 1e-3  # rounding of whoever made the values


def read_pictures(
    name: str, value: Any, height: int | None, width: int | None, factor: int
) -> np.ndarray:
    """Input pictures as float32 [N, 3, H, W] in -1..1.

    Args:
        name: Of the parameter, for errors.
        value: A PIL image (an alpha channel is dropped); a NumPy array [H, W, 3] or [N, H, W, 3];
            a torch tensor [3, H, W] or [N, 3, H, W]; or a list of one of these. Arrays are uint8,
            or real in 0..1 (in -1..1 when any value is negative, as in diffusers).
        height, width: Pixels of the result; None for those of the first picture, rounded down to a
            multiple of `factor`.
        factor: Pixels per latent.

    Raises:
        InputImageError: Another kind of thing, more than `MAX_PIXELS`, smaller than `factor`,
            values out of range, or a file that ends early.
    """
    items = _items(name, value)
    height, width = _target(name, items, height, width, factor)
    if _is_pil(items[0]):
        decoded = [_pil_array(name, item, height, width, "RGB") for item in items]
        unit = np.stack(decoded).transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    else:
        batches = [_batch(name, item) for item in items]
        _expect_one_size(name, [batch.shape[2:] for batch in batches])
        unit = resize_nearest(np.concatenate(batches), height, width)
    low, high = float(unit.min()), float(unit.max())
    if low < 0.0:
        if low < -1.0 - _SLACK or high > 1.0 + _SLACK:
            _fail(name, f"values {low:g}..{high:g}, allowed are 0..1, -1..1, or uint8")
        return np.ascontiguousarray(unit)
    if high > 1.0 + _SLACK:
        _fail(name, f"values up to {high:g}, allowed are 0..1, -1..1, or uint8")
    return np.ascontiguousarray(np.float32(2) * unit - np.float32(1))


def read_masks(name: str, value: Any, height: int, width: int) -> np.ndarray:
    """Masks as bool [N, 1, height, width]: true where the picture is to be painted anew.

    Args:
        name: Of the parameter, for errors.
        value: A PIL image, whose lightness counts; an array or tensor [H, W] or [N, H, W], with an
            axis of one channel (NumPy: last, torch: first) or without, bool, uint8, or real in
            0..1; or a list of one of these. From the middle of the range on it is true.
        height, width: Pixels of the result.

    Raises:
        InputImageError: As of `read_pictures`.
    """
    items = _items(name, value)
    if _is_pil(items[0]):
        for item in items:
            _check_pixels(name, item.height, item.width)
        grey = np.stack([_pil_array(name, item, height, width, "L") for item in items])
        unit = grey.astype(np.float32) / np.float32(255)
    else:
        planes = [_planes(name, item) for item in items]
        _expect_one_size(name, [plane.shape[1:] for plane in planes])
        unit = resize_nearest(np.concatenate(planes), height, width)
    low, high = float(unit.min()), float(unit.max())
    if low < -_SLACK or high > 1.0 + _SLACK:
        _fail(name, f"values {low:g}..{high:g}, allowed are 0..1, bool, or uint8")
    return np.asarray(unit[:, None] >= 0.5)


def fitting_size(name: str, value: Any, factor: int) -> tuple[int, int]:
    """(height, width) of the first picture of `value`, each rounded down to a multiple of `factor`.

    Raises:
        InputImageError: As of `read_pictures`.
    """
    return _target(name, _items(name, value), None, None, factor)


def open_image(name: str, path: str | os.PathLike[str]) -> Image:
    """The picture in a PNG, JPEG or WebP file, turned as its EXIF data says.

    Raises:
        InputImageError: There is no such file, it is no such picture, it is broken, or it has more
            than `MAX_PIXELS`; found before anything is decoded.
    """
    from PIL import Image, ImageOps

    text = os.fspath(path)
    try:
        if not os.path.isfile(text):
            _fail(name, f"there is no file {shown(text)}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes, which are checked below, and of metadata
            with Image.open(text, formats=_FORMATS) as image:
                _check_pixels(name, image.height, image.width)
                image.load()
                turned = ImageOps.exif_transpose(image)
                return turned.copy() if turned is image else turned
    except InputImageError:
        raise
    except Exception as error:  # PIL's decoders raise many kinds on broken files
        raise InputImageError(
            f"{name}: {shown(text)} cannot be read as a picture, allowed are "
            f"{', '.join(_FORMATS)}.",
            param=name,
            cause=str(error)[:200],
        ) from error


def resize_nearest(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """[..., H, W] to [..., height, width] by nearest neighbour, torch's rule for "nearest"."""

    def indices(size: int, wanted: int) -> np.ndarray:
        scale = np.float32(size) / np.float32(wanted)
        at = np.floor(np.arange(wanted, dtype=np.float32) * scale).astype(np.int64)
        return np.asarray(np.minimum(at, size - 1))

    if values.shape[-2:] == (height, width):
        return values
    rows, columns = indices(values.shape[-2], height), indices(values.shape[-1], width)
    return np.asarray(values[..., rows[:, None], columns])


def _fail(name: str, text: str) -> NoReturn:
    raise InputImageError(f"{name}: {text}.", param=name)


def _is_pil(value: Any) -> bool:
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or hasattr(value, "__dlpack__")


def _items(name: str, value: Any) -> list[Any]:
    items = list(value) if isinstance(value, list | tuple) else [value]
    pictures = [item for item in items if _is_pil(item)]
    arrays = [item for item in items if _is_array(item)]
    if not items or len(items) not in (len(pictures), len(arrays)):
        found = sorted({type(item).__name__ for item in items}) or ["an empty list"]
        _fail(
            name, f"got {', '.join(found)}, allowed are PIL images, arrays, or a list of one kind"
        )
    return items


def _target(
    name: str, items: list[Any], height: int | None, width: int | None, factor: int
) -> tuple[int, int]:
    for item in items:
        found_height, found_width = _size(name, item)
        _check_pixels(name, found_height, found_width)
    found_height, found_width = _size(name, items[0])
    height = found_height - found_height % factor if height is None else height
    width = found_width - found_width % factor if width is None else width
    if height < 1 or width < 1:
        _fail(name, f"{found_width}x{found_height} pixels, allowed are at least {factor}x{factor}")
    _check_pixels(name, height, width)
    return height, width


def _check_pixels(name: str, height: int, width: int) -> None:
    if not 1 <= height * width <= MAX_PIXELS:
        _fail(name, f"{width}x{height} pixels, allowed are 1 to {MAX_PIXELS:,} pixels")


def _size(name: str, item: Any) -> tuple[int, int]:
    if _is_pil(item):
        return int(item.height), int(item.width)
    shape = tuple(int(size) for size in item.shape)
    channels_last = isinstance(item, np.ndarray)
    if len(shape) not in (3, 4) or shape[-1 if channels_last else -3] != 3 or 0 in shape:
        kind = "[H, W, 3], [N, H, W, 3]" if channels_last else "[3, H, W], [N, 3, H, W]"
        _fail(name, f"shape {shape}, allowed are {kind}")
    return (shape[-3], shape[-2]) if channels_last else (shape[-2], shape[-1])


def _pil_array(name: str, image: Any, height: int, width: int, mode: str) -> np.ndarray:
    """uint8 [height, width(, 3)]."""
    from PIL import Image

    if image.mode not in _MODES:
        _fail(name, f"PIL mode {shown(image.mode)}, allowed are pictures of 8 bits")
    try:
        if image.mode in ("1", "P", "PA"):  # these cannot be interpolated
            image = image.convert(mode)
        if image.size != (width, height):
            image = image.resize((width, height), resample=Image.Resampling.LANCZOS)
        return np.array(image.convert(mode))
    except (OSError, SyntaxError, ValueError) as error:
        raise InputImageError(
            f"{name}: the picture cannot be decoded.", param=name, cause=str(error)[:200]
        ) from error


def _batch(name: str, item: Any) -> np.ndarray:
    """An array or tensor as float32 [N, 3, H, W]; uint8 goes to 0..1."""
    values = _finite(name, item)
    if values.ndim == 3:
        values = values[None]
    return values.transpose(0, 3, 1, 2) if isinstance(item, np.ndarray) else values


def _planes(name: str, item: Any) -> np.ndarray:
    """A mask's array or tensor as float32 [N, H, W]."""
    shape = tuple(int(size) for size in item.shape)
    last = isinstance(item, np.ndarray)
    has_channel = len(shape) == 4 or (last and len(shape) == 3 and shape[-1] == 1)
    one = shape[-1 if last else 1] == 1 if has_channel else True
    if len(shape) not in (2, 3, 4) or 0 in shape or not one:
        _fail(name, f"shape {shape}, allowed are [H, W], [N, H, W], and either with one channel")
    _check_pixels(name, *((shape[-3:-1] if last else shape[-2:]) if has_channel else shape[-2:]))
    values = _finite(name, item)
    if has_channel:
        values = values[..., 0] if last else values[:, 0]
    return values if values.ndim == 3 else values[None]


def _finite(name: str, item: Any) -> np.ndarray:
    try:
        values = to_array(item, name)
    except Exception as error:
        raise InputImageError(f"{name}: {error}", param=name) from error
    if values.dtype == bool:
        return values.astype(np.float32)
    if values.dtype == np.uint8:
        return values.astype(np.float32) / np.float32(255)
    if values.dtype.kind != "f":
        _fail(name, f"dtype {values.dtype}, allowed are uint8 and real numbers")
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        _fail(name, "NaN or infinity, allowed are finite numbers")
    return values


def _expect_one_size(name: str, sizes: list[tuple[int, ...]]) -> None:
    if len(set(sizes)) > 1:
        _fail(name, f"arrays of sizes {shown(sorted(set(sizes)))}, allowed is one size")
