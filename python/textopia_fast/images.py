"""From decoded tensors to pictures, and pictures to files.

Conversions follow diffusers (`VaeImageProcessor`): `x / 2 + 0.5`, clipped to [0, 1], `* 255`,
rounded half to even.
"""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING

import numpy as np

from .errors import (
    InvalidRequestError,
    NumericalError,
    OutputError,
    UnsupportedModelError,
)

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.PngImagePlugin import PngInfo

__all__ = ["MAX_TEXT_BYTES", "parameters_text", "save_png", "to_numpy", "to_pil", "to_uint8"]

MAX_TEXT_BYTES = 80 << 10
"""Longest text that is written into a PNG, in bytes of UTF-8: two of the longest prompts."""

_STAGE = "vae_decoder"


def to_numpy(decoded: np.ndarray, *, stage: str = _STAGE) -> np.ndarray:
    """Decoder output to images with values in [0, 1].

    Args:
        decoded: float [N, 3, H, W], nominally in [-1, 1].
        stage: Named in the error.

    Returns:
        float32 [N, H, W, 3].

    Raises:
        NumericalError: A value is NaN or infinite.
        UnsupportedModelError: The shape is another one.
    """
    values = np.asarray(decoded, dtype=np.float32)
    if values.ndim != 4 or values.shape[1] != 3:
        raise UnsupportedModelError(
            f"{stage}: its result has the shape {values.shape}, [N, 3, H, W] is supported.",
            component=stage,
        )
    finite = np.isfinite(values)
    if not finite.all():
        bad = [int(i) for i in np.flatnonzero(~finite.all(axis=(1, 2, 3)))]
        raise NumericalError(
            f"{stage}: {np.count_nonzero(~finite):,} of {finite.size:,} values of the decoded "
            f"images are NaN or infinite (images {', '.join(map(str, bad[:10]))}).",
            hint="Lower the guidance scale, or use a model or precision that does not overflow.",
            stage=stage,
            images=bad,
        )
    return np.ascontiguousarray((values * 0.5 + 0.5).clip(0.0, 1.0).transpose(0, 2, 3, 1))


def to_uint8(images: np.ndarray) -> np.ndarray:
    """Images with values in [0, 1] (float [N, H, W, 3]) to uint8, rounded half to even."""
    return np.asarray((images * 255).round(), dtype=np.uint8)


def to_pil(images: np.ndarray) -> list[Image]:
    """Images with values in [0, 1] (float [N, H, W, 3]) to PIL images."""
    from PIL import Image

    return [Image.fromarray(image) for image in to_uint8(images)]


def parameters_text(
    prompt: str,
    *,
    negative_prompt: str = "",
    **fields: object,
) -> str:
    """The text that stable-diffusion-webui and its relatives keep with a picture.

    `parameters_text("a cat", negative_prompt="dog", Steps=20, Seed=7)` gives

        a cat
        Negative prompt: dog
        Steps: 20, Seed: 7

    Args:
        prompt: First line or lines.
        negative_prompt: Left out when empty.
        **fields: The last line, in this order; underscores in names stand for spaces, None leaves
            an entry out. The usual names are Steps, Sampler, Schedule_type, CFG_scale, Seed, Size,
            Model, Version.
    """
    lines = [prompt.strip()]
    if negative_prompt.strip():
        lines.append(f"Negative prompt: {negative_prompt.strip()}")
    entries = [
        f"{name.replace('_', ' ')}: {_quoted(str(value))}"
        for name, value in fields.items()
        if value is not None
    ]
    return "\n".join([*lines, ", ".join(entries)]).strip()


def _quoted(text: str) -> str:
    # A value that could be taken for the start of the next entry is written as JSON.
    return json.dumps(text, ensure_ascii=False) if any(c in text for c in ",\n:") else text


def save_png(
    image: Image | np.ndarray,
    path: str | os.PathLike[str],
    *,
    parameters: str | None = None,
    overwrite: bool = True,
) -> None:
    """Writes a PNG so that the file is either complete or not there.

    It is written under a temporary name in the same directory, flushed to the disk and renamed.

    Args:
        image: A PIL image, or uint8 [H, W, 3].
        path: Where to.
        parameters: Text for the PNG's `parameters` entry; see `parameters_text`.
        overwrite: Replaces a file of that name; otherwise that is an error.

    Raises:
        OutputError: It could not be written; `errno` says why. Nothing is left behind.
        InvalidRequestError: The text is longer than is allowed.
    """
    info = _png_info(parameters)
    if isinstance(image, np.ndarray):
        from PIL import Image

        image = Image.fromarray(image)
    target = os.fspath(path)
    temporary = os.path.join(os.path.dirname(target), f".textopia-{os.urandom(8).hex()}.tmp")
    created = False
    try:
        _refuse_special(target)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        handle = os.open(temporary, flags | getattr(os, "O_BINARY", 0), 0o666)
        created = True
        with open(handle, "wb") as file:
            image.save(file, "PNG", pnginfo=info)
            file.flush()
            os.fsync(file.fileno())
        _publish(temporary, target, overwrite)
        created = False
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise _output_error(target, error) from error
    finally:
        if created:
            _remove(temporary)


def _png_info(parameters: str | None) -> PngInfo | None:
    if parameters is None:
        return None
    from PIL.PngImagePlugin import PngInfo

    try:
        size = len(parameters.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            "parameters: is not valid Unicode (a lone surrogate).", param="parameters"
        ) from error
    if size > MAX_TEXT_BYTES or "\0" in parameters:
        raise InvalidRequestError(
            f"parameters: has {size:,} bytes, at most {MAX_TEXT_BYTES:,} without NUL are allowed.",
            param="parameters",
        )
    info = PngInfo()
    # tEXt holds Latin-1 only; add_text falls back to iTXt (UTF-8) for anything else.
    info.add_text("parameters", parameters)
    return info


def _refuse_special(target: str) -> None:
    """A rename would silently replace a link or a device, and fails late on a directory."""
    if os.path.isdir(target):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target)
    if os.path.exists(target) and not os.path.isfile(target):
        raise FileExistsError(errno.EEXIST, "not a regular file", target)


def _publish(temporary: str, target: str, overwrite: bool) -> None:
    if overwrite:
        os.replace(temporary, target)
        return
    try:
        os.link(temporary, target)  # fails when the name is taken, without a gap in time
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target) from None
        os.rename(temporary, target)
    else:
        os.unlink(temporary)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return  # the first error is the one to report


def _output_error(target: str, error: OSError | ValueError) -> OutputError:
    number = error.errno if isinstance(error, OSError) else errno.EINVAL
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    hints = {
        errno.ENOENT: "Make the directory first.",
        errno.EEXIST: "Choose another name or allow overwriting.",
        errno.ENOSPC: "Free some space.",
        errno.EACCES: "Check the directory's permissions.",
    }
    name = target if target.isprintable() else ascii(target)
    return OutputError(
        f"{name}: could not be written ({reason}).",
        hint=hints.get(number or 0),
        errno=number,
        path=target,
    )
