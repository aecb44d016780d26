"""Directories that are not fine: each ends in a typed error that names the place."""

from __future__ import annotations

import errno
import os
import random
import shutil
from pathlib import Path

import pytest

from tests.models.spoiling import check_message, refused
from tests.support.tiny_directory import write_json
from textopia_fast.errors import (
    ModelError,
    ModelFormatError,
    ModelNotFoundError,
    UnsafeModelError,
    UnsupportedModelError,
)
from textopia_fast.models import open_directory


@pytest.mark.parametrize("name", ["org/model", "nothing-here", "", "\0", "x" * 5000, "~/model"])
def test_a_name_that_is_no_directory(name: str) -> None:
    error = refused(name, ModelNotFoundError, "there is no directory")  # type: ignore[arg-type]
    assert "tiny-shapes" in str(error)
    assert "Nothing is downloaded" in str(error)
    assert isinstance(error, FileNotFoundError)


@pytest.mark.parametrize("name", [None, 7, b"bytes", ["list"]])
def test_something_that_is_no_name(name: object) -> None:
    refused(name, ModelNotFoundError, "neither a name nor a path")  # type: ignore[arg-type]


def test_a_file_instead_of_a_directory(root: Path) -> None:
    refused(root / "model_index.json", ModelNotFoundError, "is a file")


def test_an_empty_directory(tmp_path: Path) -> None:
    refused(tmp_path, ModelNotFoundError, "model_index.json")


@pytest.mark.parametrize(
    "name",
    ["StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "FluxPipeline", None, 3, ["x"], "\n"],
)
def test_other_kinds_of_pipeline(root: Path, name: object) -> None:
    write_json(root / "model_index.json", {"_class_name": name})
    error = refused(root, UnsupportedModelError, "OnnxStableDiffusionPipeline")
    assert "_class_name" in str(error)


# --- parts --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "model_index.json",
        "unet",
        "text_encoder",
        "vae_decoder",
        "unet/model.onnx",
        "unet/config.json",
        "vae_encoder/model.onnx",
        "scheduler/scheduler_config.json",
        "tokenizer",
    ],
)
def test_something_is_missing(root: Path, path: str) -> None:
    target = root / path
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    error = refused(root, ModelNotFoundError, path)
    assert path == "model_index.json" or error.details["component"] in (path.split("/")[0], None)


JSON_FILES = [
    "model_index.json",
    "unet/config.json",
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer_config.json",
]


@pytest.mark.parametrize("path", JSON_FILES)
@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"a": 1} x', "not valid JSON"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"[]", "holds a list"),
        (b"null", "holds null"),
        (b'"text"', "holds a string"),
        (b"7", "holds a number"),
        (b'{"a": 1, "a": 2}', "'a' occurs twice"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_wrong_json(root: Path, path: str, content: bytes, text: str) -> None:
    (root / path).write_bytes(content)
    error = refused(root, ModelFormatError, text)
    assert str(error).startswith(path)


@pytest.mark.parametrize("path", JSON_FILES)
def test_json_beyond_the_limits(root: Path, path: str) -> None:
    (root / path).write_text('{"a": ' + "[" * 16 + "]" * 16 + "}")
    refused(root, UnsafeModelError, "nested deeper than 16")
    (root / path).write_text("[" * 200_000)
    refused(root, UnsafeModelError, "nested deeper than 16")
    (root / path).write_text('{"a": "' + "x" * (4 << 20) + '"}')
    refused(root, UnsafeModelError, "at most 4,194,304 are allowed")


def test_json_at_the_limits(root: Path) -> None:
    deep = '{"_class_name": "PNDMScheduler", "a": ' + "[" * 15 + "]" * 15 + "}"
    (root / "scheduler/scheduler_config.json").write_text(deep)
    assert open_directory(root)


@pytest.mark.parametrize("path", [*JSON_FILES, "unet/model.onnx", "vae_encoder/model.onnx"])
def test_something_else_in_place_of_a_file(root: Path, path: str) -> None:
    target = root / path
    target.unlink()
    target.mkdir()
    refused(root, ModelFormatError, "is a directory")
    target.rmdir()
    os.mkfifo(target)  # opening it would wait for a writer
    refused(root, ModelFormatError, "is a pipe")
    target.unlink()
    target.symlink_to(target.name)  # a loop
    refused(root, ModelNotFoundError, "cannot be read")
    target.unlink()
    target.symlink_to("nowhere")
    refused(root, ModelNotFoundError, "no such file")
    target.unlink()
    target.symlink_to("/dev/zero")
    refused(root, UnsafeModelError, "outside of the model directory")


@pytest.mark.parametrize("path", [*JSON_FILES, "unet/model.onnx"])
@pytest.mark.parametrize("reason", [errno.EACCES, errno.EIO])
def test_something_unreadable(
    root: Path, path: str, reason: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_open = os.open

    def refuse(file: object, *args: object, **more: object) -> int:
        if file == root / path:
            raise OSError(reason, os.strerror(reason))
        return really_open(file, *args, **more)  # type: ignore[arg-type]

    # Not by permissions: they do not stop root, and CI often is.
    monkeypatch.setattr(os, "open", refuse)
    refused(root, ModelNotFoundError, os.strerror(reason))


def test_all_problems_are_reported_at_once(root: Path) -> None:
    (root / "unet/config.json").unlink()
    (root / "vae_decoder/model.onnx").write_bytes(b"")
    (root / "scheduler/scheduler_config.json").write_text("[]")
    shutil.rmtree(root / "tokenizer")
    error = refused(root, ModelFormatError, "4 problems")
    assert len(error.details["problems"]) == 4
    for path in ("unet/config.json", "vae_decoder/model.onnx", "scheduler/", "tokenizer"):
        assert path in str(error)


def mutate(data: bytes, rng: random.Random) -> bytes:
    kind = rng.randrange(5)
    at = rng.randrange(len(data))
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    if kind == 2:
        return data[:at] + rng.randbytes(rng.randint(1, 9)) + data[at:]
    if kind == 3:
        return data[:at] + data[at + rng.randint(1, 50) :]
    return data[:at] + b"\xff\xff\xff\xff\x7f" + data[at + 5 :]


@pytest.mark.parametrize("seed", range(4))
def test_mutations_load_or_end_in_a_model_error(external: Path, seed: int) -> None:
    rng = random.Random(seed)
    files = sorted(p for p in external.rglob("*") if p.is_file() and p.suffix != ".onnx_data")
    for _ in range(30):
        file = rng.choice(files)
        original = file.read_bytes()
        file.write_bytes(mutate(original, rng))
        try:
            open_directory(external)
        except ModelError as error:
            check_message(error)
        file.write_bytes(original)
    assert open_directory(external)
