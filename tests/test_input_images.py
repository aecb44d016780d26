"""Input pictures: every kind that is taken, sizes, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.golden.edit_inputs import mask, picture
from textopia_fast.errors import InputImageError
from textopia_fast.input_images import (
    MAX_PIXELS,
    fitting_size,
    open_image,
    read_masks,
    read_pictures,
    resize_nearest,
)


def read(value: Any, height: int | None = None, width: int | None = None) -> np.ndarray:
    return read_pictures("image", value, height, width, 8)


def expected(k: int = 0) -> np.ndarray:
    return (2 * (picture(k).astype(np.float32) / np.float32(255)) - 1).transpose(2, 0, 1)


def test_every_kind_of_picture_is_the_same_picture() -> None:
    torch = pytest.importorskip("torch")
    array = picture(0)
    unit = array.astype(np.float32) / np.float32(255)
    kinds = {
        "pil": Image.fromarray(array),
        "uint8": array,
        "float": unit,
        "double": unit.astype(np.float64),
        "batch": unit[None],
        "list": [array],
        "minus one to one": 2 * unit - 1,
        "tensor": torch.from_numpy(unit).permute(2, 0, 1),
        "tensor batch": torch.from_numpy(2 * unit - 1).permute(2, 0, 1)[None],
        "list of tensors": [torch.from_numpy(unit).permute(2, 0, 1).requires_grad_()],
    }
    for name, value in kinds.items():
        found = read(value)
        assert (found.shape, found.dtype) == ((1, 3, 64, 64), np.float32), name
        np.testing.assert_allclose(found[0], expected(), atol=2e-7, err_msg=name)


def test_lists_and_batches() -> None:
    both = np.stack([picture(0), picture(1)])
    for value in (both, list(both), [Image.fromarray(p) for p in both], [both[:1], both[1:]]):
        np.testing.assert_array_equal(read(value), np.stack([expected(0), expected(1)]))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr"])
def test_other_modes_are_turned_into_colours(mode: str) -> None:
    image = Image.fromarray(picture(0))
    image = image.convert("RGBA").convert("LA") if mode == "LA" else image.convert(mode)
    with_colours = np.asarray(image.convert("RGB")).astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(read(image)[0], with_colours.transpose(2, 0, 1), atol=1e-6)


def test_sizes_are_rounded_down_as_diffusers_does() -> None:
    assert fitting_size("image", Image.new("RGB", (71, 64)), 8) == (64, 64)
    assert fitting_size("image", np.zeros((15, 130, 3), np.uint8), 8) == (8, 128)
    assert read(Image.new("RGB", (71, 33))).shape == (1, 3, 32, 64)
    assert read(np.zeros((2, 71, 33, 3)), 16, 24).shape == (2, 3, 16, 24)


def test_resizing_is_torchs_and_pils() -> None:
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).random((2, 3, 53, 71), np.float32)
    for size in ((48, 64), (53, 71), (7, 160), (106, 1)):
        theirs = torch.nn.functional.interpolate(torch.from_numpy(values), size=size).numpy()
        np.testing.assert_array_equal(resize_nearest(values, *size), theirs)
    image = Image.fromarray(picture(0, 53, 71))
    lanczos = np.asarray(image.resize((64, 48), Image.Resampling.LANCZOS), np.float32)
    np.testing.assert_allclose(read(image)[0], (lanczos / 127.5 - 1).transpose(2, 0, 1), atol=1e-6)


BAD = {
    "a path": "picture.png",
    "a number": 3,
    "nothing": [],
    "a mixture": [Image.new("RGB", (8, 8)), np.zeros((8, 8, 3))],
    "text in a list": ["a.png"],
    "grey array": np.zeros((64, 64)),
    "channels first": np.zeros((3, 64, 64)),
    "four channels": np.zeros((64, 64, 4)),
    "too many axes": np.zeros((1, 1, 64, 64, 3)),
    "no pixels": np.zeros((0, 64, 3)),
    "no pictures": np.zeros((0, 64, 64, 3)),
    "too small": np.zeros((7, 64, 3)),
    "too small for the factor": Image.new("RGB", (64, 7)),
    "values of 8 bits": np.full((8, 8, 3), 255.0),
    "values below -1": np.full((8, 8, 3), -2.0),
    "not finite": np.full((8, 8, 3), np.nan),
    "integers": np.zeros((8, 8, 3), np.int64),
    "complex": np.zeros((8, 8, 3), complex),
    "objects": np.full((8, 8, 3), None),
    "many bits": Image.new("I", (8, 8)),
    "several sizes": [np.zeros((8, 8, 3)), np.zeros((8, 16, 3))],
    "a bomb": Image.new("1", (4097, 4096)),
    "an array bomb": np.broadcast_to(np.uint8(0), (4096, 4097, 3)),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused(name: str) -> None:
    with pytest.raises(InputImageError, match=r"image: .*[.]") as caught:
        read(BAD[name])
    assert caught.value.details["param"] == "image"


def test_every_kind_of_mask_is_the_same_mask() -> None:
    torch = pytest.importorskip("torch")
    grey = mask(0)
    expected = grey[None, None] >= 128
    kinds = {
        "pil": Image.fromarray(grey),
        "black and white": Image.fromarray(grey).convert("1"),
        "colours": Image.fromarray(grey).convert("RGB"),
        "uint8": grey,
        "float": grey / 255.0,
        "bool": grey > 0,
        "channel": grey[..., None],
        "batch": grey[None],
        "batch with channel": grey[None, ..., None],
        "list": [grey],
        "tensor": torch.from_numpy(grey),
        "tensor batch": torch.from_numpy(grey)[None],
        "tensor batch with channel": torch.from_numpy(grey / 255.0)[None, None],
    }
    for name, value in kinds.items():
        found = read_masks("mask_image", value, 64, 64)
        assert found.dtype == bool
        np.testing.assert_array_equal(found, expected, err_msg=name)
    both = read_masks("mask_image", np.stack([mask(0), mask(1)]), 32, 16)
    assert both.shape == (2, 1, 32, 16)


def test_masks_turn_at_one_half() -> None:
    values = np.array([[0.0, 0.49, 0.5, 1.0]])
    found = read_masks("mask_image", values, 1, 4)
    assert found.tolist() == [[[[False, False, True, True]]]]


@pytest.mark.parametrize(
    "value",
    [
        "mask.png",
        [],
        np.zeros(64),
        np.zeros((64, 64, 1, 1, 1)),
        np.zeros((2, 64, 64, 3)),
        np.zeros((0, 64)),
        np.full((64, 64), 2.0),
        np.full((64, 64), -1.0),
        np.full((64, 64), np.nan),
        np.zeros((64, 64), np.int32),
        [np.zeros((64, 64)), np.zeros((64, 32))],
        Image.new("F", (64, 64)),
        Image.new("1", (4097, 4096)),
        np.broadcast_to(np.uint8(0), (4096, 4097)),
    ],
)
def test_masks_that_are_refused(value: Any) -> None:
    with pytest.raises(InputImageError, match="mask_image: "):
        read_masks("mask_image", value, 64, 64)


@pytest.mark.parametrize("extension", ["png", "jpg", "webp"])
def test_files(extension: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{extension}"
    Image.fromarray(picture(0)).save(path)
    image = open_image("image", path)
    assert image.size == (64, 64)
    assert np.abs(np.asarray(image).astype(int) - picture(0)).mean() < 8
    assert read(image).shape == (1, 3, 64, 64)


def test_the_camera_may_have_lain_on_its_side(tmp_path: Path) -> None:
    image, exif = Image.new("RGB", (32, 16)), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert open_image("image", tmp_path / "a.jpg").size == (16, 32)


def test_files_that_are_refused(tmp_path: Path) -> None:
    good = tmp_path / "good.png"
    Image.fromarray(picture(0)).save(good)
    data = good.read_bytes()
    (tmp_path / "cut.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "broken.png").write_bytes(data[:30] + b"\xff" * 40 + data[70:])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    Image.fromarray(picture(0)).save(tmp_path / "other.gif")
    Image.new("1", (4097, 4096)).save(tmp_path / "bomb.png")
    info = PngInfo()
    info.add_text("a", "x" * 10_000_000, zip=True)
    Image.new("1", (8, 8)).save(tmp_path / "text_bomb.png", pnginfo=info)
    for name in ("cut", "broken", "text", "empty", "bomb", "text_bomb"):
        with pytest.raises(InputImageError):
            open_image("image", tmp_path / f"{name}.png")
    for other in (tmp_path / "other.gif", tmp_path, tmp_path / "not there", "a\0b"):
        with pytest.raises(InputImageError):
            open_image("image", other)
    assert MAX_PIXELS == 2**24
