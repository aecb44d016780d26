"""Decoded tensors to pictures, and pictures to files."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from textopia_fast import images
from textopia_fast.errors import (
    InvalidRequestError,
    NumericalError,
    OutputError,
    UnsupportedModelError,
)
from textopia_fast.images import parameters_text, save_png, to_numpy, to_pil, to_uint8


@pytest.fixture
def picture() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    return Image.fromarray(noise)


# --- conversions --------------------------------------------------------------------------------


def test_range_and_layout() -> None:
    decoded = np.zeros((2, 3, 2, 4), dtype=np.float32)
    decoded[0, 0, 0, 1] = 1.0
    decoded[0, 1, 1, 3] = -1.0
    decoded[1, 2] = 7.0
    decoded[1, 1] = -7.0
    pictures = to_numpy(decoded)
    assert pictures.shape == (2, 2, 4, 3)
    assert pictures.dtype == np.float32
    assert pictures.flags.c_contiguous
    assert pictures[0, 0, 1].tolist() == [1.0, 0.5, 0.5]
    assert pictures[0, 1, 3].tolist() == [0.5, 0.0, 0.5]
    assert (pictures[1] == [0.5, 0.0, 1.0]).all()


def test_rounding_is_half_to_even() -> None:
    levels = np.array([0.5, 1.5, 2.5, 254.5], dtype=np.float64) / 255
    assert to_uint8(levels.reshape(1, 1, 4, 1)).ravel().tolist() == [0, 2, 2, 254]
    every = np.arange(256, dtype=np.float32).reshape(1, 16, 16, 1) / np.float32(255)
    assert to_uint8(every).ravel().tolist() == list(range(256))


def test_half_precision_input() -> None:
    decoded = np.full((1, 3, 2, 2), 0.5, dtype=np.float16)
    assert to_numpy(decoded).dtype == np.float32
    assert (to_uint8(to_numpy(decoded)) == 191).all()


@pytest.mark.filterwarnings("ignore")
def test_equal_to_diffusers() -> None:
    processor = pytest.importorskip("diffusers.image_processor").VaeImageProcessor()
    torch = pytest.importorskip("torch")
    decoded = np.random.default_rng(1).normal(0, 0.7, (2, 3, 16, 24)).astype(np.float32)
    theirs = processor.postprocess(torch.from_numpy(decoded.copy()), output_type="pil")
    for ours, expected in zip(to_pil(to_numpy(decoded)), theirs, strict=True):
        assert ours.size == (24, 16)
        assert np.array_equal(np.asarray(ours), np.asarray(expected))
    floats = processor.postprocess(torch.from_numpy(decoded.copy()), output_type="np")
    assert np.array_equal(to_numpy(decoded), floats)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers(bad: float) -> None:
    decoded = np.zeros((3, 3, 4, 4), dtype=np.float32)
    decoded[1, 2, 3, 3] = bad
    with pytest.raises(NumericalError) as caught:
        to_numpy(decoded)
    assert caught.value.details["stage"] == "vae_decoder"
    assert caught.value.details["images"] == [1]
    assert "1 of 144 values" in str(caught.value)


def test_another_shape() -> None:
    with pytest.raises(UnsupportedModelError, match=r"\(1, 4, 2, 2\)"):
        to_numpy(np.zeros((1, 4, 2, 2), dtype=np.float32))


# --- the text of a picture ----------------------------------------------------------------------


def test_the_text_that_others_read() -> None:
    text = parameters_text(
        "a cat\nin a hat ",
        negative_prompt="dog",
        Steps=20,
        Sampler="dpmpp_2m",
        Schedule_type=None,
        CFG_scale=7.5,
        Seed=1,
        Model="a,b",
    )
    assert text == (
        "a cat\nin a hat\nNegative prompt: dog\n"
        'Steps: 20, Sampler: dpmpp_2m, CFG scale: 7.5, Seed: 1, Model: "a,b"'
    )
    assert parameters_text("x") == "x"


@pytest.mark.parametrize(
    "text", ["plain", "ünder 日本 😀", "two\nlines", "", "x" * images.MAX_TEXT_BYTES]
)
def test_text_survives_the_file(picture: Image.Image, tmp_path: Path, text: str) -> None:
    save_png(picture, tmp_path / "a.png", parameters=text)
    with Image.open(tmp_path / "a.png") as loaded:
        assert loaded.text["parameters"] == text


def test_no_text_unless_asked(picture: Image.Image, tmp_path: Path) -> None:
    picture.info["parameters"] = "of another picture"
    save_png(picture, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as loaded:
        assert not loaded.text


@pytest.mark.parametrize("text", ["x" * (images.MAX_TEXT_BYTES + 1), "\ud800", "a\0b"])
def test_text_that_cannot_be_kept(picture: Image.Image, tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidRequestError, match="parameters: "):
        save_png(picture, tmp_path / "a.png", parameters=text)
    assert not list(tmp_path.iterdir())


# --- files --------------------------------------------------------------------------------------


def test_pixels_survive_the_file(picture: Image.Image, tmp_path: Path) -> None:
    save_png(picture, tmp_path / "a.png")
    save_png(np.asarray(picture), str(tmp_path / "b.png"))
    for name in ("a.png", "b.png"):
        with Image.open(tmp_path / name) as loaded:
            assert np.array_equal(np.asarray(loaded), np.asarray(picture))
    assert sorted(os.listdir(tmp_path)) == ["a.png", "b.png"]


def test_the_umask_decides_on_permissions(picture: Image.Image, tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        save_png(picture, tmp_path / "a.png")
    finally:
        os.umask(before)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o640


def test_overwriting_is_a_choice(picture: Image.Image, tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"old")
    with pytest.raises(OutputError) as caught:
        save_png(picture, target, overwrite=False)
    assert caught.value.errno == errno.EEXIST
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.png"]
    save_png(picture, target)
    assert target.read_bytes() != b"old"
    save_png(picture, tmp_path / "new.png", overwrite=False)
    assert sorted(os.listdir(tmp_path)) == ["a.png", "new.png"]


def test_a_link_is_replaced_not_followed(picture: Image.Image, tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "a.png").symlink_to("victim")
    save_png(picture, tmp_path / "a.png")
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert not (tmp_path / "a.png").is_symlink()


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("no/such/directory.png", errno.ENOENT),
        ("", errno.ENOENT),
        ("directory", errno.EISDIR),
        ("file/a.png", errno.ENOTDIR),
        ("pipe", errno.EEXIST),
        ("a\0b.png", errno.EINVAL),
        ("x" * 300 + ".png", errno.ENAMETOOLONG),
    ],
)
def test_places_that_cannot_be_written(
    picture: Image.Image, tmp_path: Path, name: str, number: int
) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(OutputError) as caught:
        save_png(picture, f"{tmp_path}/{name}" if name else "")
    assert caught.value.errno == number
    assert str(caught.value).isprintable()
    assert sorted(os.listdir(tmp_path)) == before


@contextmanager
def small_files() -> Iterator[None]:
    """A limit on the size of files, as a full disk is; held no longer than needed, since it is also
    one for the file that the test run's own output may go to."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_disk_that_fills_up(picture: Image.Image, tmp_path: Path) -> None:
    target = tmp_path / "a.png"
    target.write_bytes(b"old")
    with small_files(), pytest.raises(OutputError) as caught:
        save_png(picture, target)
    assert caught.value.errno == errno.EFBIG
    assert target.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS])
def test_every_call_may_fail(
    picture: Image.Image,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    number: int,
) -> None:
    def fail(*args: object, **more: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(images.os, call, fail)
        with pytest.raises(OutputError) as caught:
            save_png(picture, tmp_path / "a.png")
    assert caught.value.errno == number
    assert os.strerror(number) in str(caught.value)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interruption_leaves_nothing_behind(
    picture: Image.Image,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: type[BaseException],
) -> None:
    def fail(*args: object, **more: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(images.os, "fsync", fail)
        with pytest.raises(error):
            save_png(picture, tmp_path / "a.png")
    assert not os.listdir(tmp_path)


def test_without_hard_links(
    picture: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*args: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(images.os, "link", no_links)
    save_png(picture, tmp_path / "a.png", overwrite=False)
    with pytest.raises(OutputError) as caught:
        save_png(picture, tmp_path / "a.png", overwrite=False)
    assert caught.value.errno == errno.EEXIST
    assert os.listdir(tmp_path) == ["a.png"]


def test_the_error_keeps_its_number_through_pickle(picture: Image.Image, tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught:
        save_png(picture, tmp_path / "no" / "a.png")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(copy, OSError)
    assert (copy.errno, str(copy)) == (errno.ENOENT, str(caught.value))
