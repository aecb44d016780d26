"""Weights in files beside the graph: where they may be and what has to fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from tests.models.spoiling import refused, rewrite, weight
from textopia_fast.errors import (
    ModelError,
    ModelFormatError,
    ModelIntegrityError,
    ModelNotFoundError,
    UnsafeModelError,
)
from textopia_fast.models import open_directory


def set_external(
    name: str = "conv_in.weight", **fields: object
) -> Callable[[onnx.ModelProto], None]:
    """Replaces keys of a tensor's external data; None removes one."""

    def change(model: onnx.ModelProto) -> None:
        tensor = weight(model, name)
        entries = {e.key: e.value for e in tensor.external_data} | fields
        del tensor.external_data[:]
        for key, value in entries.items():
            if value is not None:
                tensor.external_data.add(key=key, value=str(value))

    return change


@pytest.mark.parametrize(
    "location",
    [
        "/etc/hostname",
        "../vae_decoder/model.onnx_data",
        "sub/../model.onnx_data",
        "./model.onnx_data",
        "sub/model.onnx_data",
        "..",
        ".",
        "",
        "..\\x",
        "C:x",
        "x\0y",
        "x\ny",
        "*/_ORT_MEM_ADDR_/*",
        "/proc/self/fd/0",
        "x" * 5000,
    ],
)
def test_external_data_elsewhere(external: Path, location: str) -> None:
    rewrite(external / "unet/model.onnx", set_external(location=location))
    error = refused(external, UnsafeModelError, "plain name of a file beside the graph")
    assert error.details["rule"] == "location"


@pytest.mark.parametrize(
    ("fields", "kind", "text"),
    [
        ({"location": "missing"}, ModelNotFoundError, "no such file"),
        ({"offset": 10**9}, ModelIntegrityError, "at offset 1,000,000,000 but"),
        ({"offset": 2**63}, ModelFormatError, "numbers of bytes"),
        ({"offset": -1}, ModelFormatError, "offset '-1'"),
        ({"offset": "0x10"}, ModelFormatError, "offset '0x10'"),
        ({"offset": "٣"}, ModelFormatError, "numbers of bytes"),
        ({"length": 10**15}, ModelFormatError, "its length is 1,000,000,000,000,000"),
        ({"length": 4}, ModelFormatError, "needs 1,152 bytes but its length is 4"),
        ({"dims": 4}, UnsafeModelError, "'dims'"),
        ({"offset": 4}, UnsafeModelError, "overlap"),
    ],
)
def test_external_data_that_does_not_fit(
    external: Path, fields: dict, kind: type[ModelError], text: str
) -> None:
    rewrite(external / "unet/model.onnx", set_external(**fields))
    refused(external, kind, text)


def test_a_key_given_twice(external: Path) -> None:
    change = lambda m: weight(m).external_data.add(key="offset", value="0")  # noqa: E731
    rewrite(external / "unet/model.onnx", change)
    refused(external, UnsafeModelError, "once each")


def test_length_and_offset_may_be_left_out(external: Path) -> None:
    # The first tensor of the file, so that its offset is 0 without being said.
    first = onnx.load(external / "unet/model.onnx", load_external_data=False)
    name = min(
        (t for t in first.graph.initializer if t.external_data),
        key=lambda t: int({e.key: e.value for e in t.external_data}["offset"]),
    ).name
    rewrite(external / "unet/model.onnx", set_external(name, offset=None, length=None))
    assert open_directory(external)


def test_truncated_external_data(external: Path) -> None:
    data = external / "unet/model.onnx_data"
    size = data.stat().st_size
    with open(data, "r+b") as file:
        file.truncate(size - 1)
    error = refused(external, ModelIntegrityError, f"unet/model.onnx_data has {size - 1:,}")
    assert error.details["actual"] == size - 1
    assert error.details["expected"] == size
    data.write_bytes(b"")
    error = refused(external, ModelIntegrityError, "problems")
    assert len(error.details["problems"]) > 1
    data.unlink()
    refused(external, ModelNotFoundError, "unet/model.onnx_data: there is no such file")


def test_a_link_out_of_the_directory(external: Path, tmp_path: Path) -> None:
    data = external / "unet/model.onnx_data"
    outside = tmp_path / "outside"
    data.rename(outside)
    data.symlink_to(outside)
    error = refused(external, UnsafeModelError, "outside of the model directory")
    assert str(outside) not in str(error)


def test_a_part_that_is_a_link_out_of_the_directory(root: Path, tmp_path: Path) -> None:
    (root / "unet").rename(tmp_path / "elsewhere")
    (root / "unet").symlink_to(tmp_path / "elsewhere")
    refused(root, UnsafeModelError, "outside of the model directory")


def test_blobs_of_another_repository_are_outside(root: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "1"
    snapshot.parent.mkdir(parents=True)
    root.rename(snapshot)
    other = tmp_path / "models--c--d" / "blobs" / "x"
    other.parent.mkdir(parents=True)
    (snapshot / "unet/model.onnx").rename(other)
    (snapshot / "unet/model.onnx").symlink_to(other)
    refused(snapshot, UnsafeModelError, "outside of the model directory")
