"""Directories that are not fine: each ends in a typed error that names the place."""

from __future__ import annotations

import errno
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from textopia_fast.errors import (
    ModelError,
    ModelFormatError,
    ModelIntegrityError,
    ModelNotFoundError,
    UnsafeModelError,
    UnsupportedModelError,
)
from textopia_fast.models import open_directory

from tests.support.tiny_directory import build_tiny_directory, write_json


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("originals")
    build_tiny_directory(base / "inside")
    build_tiny_directory(base / "outside", external_data=True)
    return base


@pytest.fixture
def root(originals: Path, tmp_path: Path) -> Path:
    """A directory of one's own, weights inside of the graphs."""
    return Path(shutil.copytree(originals / "inside", tmp_path / "model"))


@pytest.fixture
def external(originals: Path, tmp_path: Path) -> Path:
    """A directory of one's own, weights in external files."""
    return Path(shutil.copytree(originals / "outside", tmp_path / "external"))


def check_message(error: ModelError) -> None:
    """The rules for messages: one line, printable, bounded, ends as a sentence."""
    text = str(error)
    assert "\n" not in text
    assert text.isprintable()
    assert text.endswith((".", "?"))
    for one in error.details.get("problems", [error.message]):
        assert len(one) <= 420, one


def refused(root: Path, kind: type[ModelError], text: str) -> ModelError:
    with pytest.raises(ModelError) as caught:
        open_directory(root)
    check_message(caught.value)
    assert type(caught.value) is kind, caught.value
    assert text in str(caught.value)
    return caught.value


# --- the directory itself -----------------------------------------------------------------------


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


# --- graphs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 2, 100, 2000, -1])
def test_truncated_graphs(root: Path, size: int) -> None:
    graph = root / "unet/model.onnx"
    graph.write_bytes(graph.read_bytes()[:size])
    refused(root, ModelFormatError, "unet/model.onnx")


@pytest.mark.parametrize(
    "content",
    [b"\0" * 100, b"garbage", b"<html></html>", b"version https://git-lfs.github.com/spec/v1\n"],
)
def test_files_that_are_no_graphs(root: Path, content: bytes) -> None:
    (root / "unet/model.onnx").write_bytes(content)
    refused(root, ModelFormatError, "is no ONNX graph")


def test_deep_nesting_on_the_wire(root: Path) -> None:
    message = b""
    for _ in range(2000):  # graph > node > attribute > graph ..., each in the field that holds it
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            length, prefix = len(message), b""
            while length > 127:
                prefix += bytes([length & 127 | 128])
                length >>= 7
            message = tag + prefix + bytes([length]) + message
    (root / "unet/model.onnx").write_bytes(b"\x08\x09" + message)
    refused(root, ModelFormatError, "unet/model.onnx")


def test_a_sparse_giant(root: Path) -> None:
    with open(root / "unet/model.onnx", "wb") as file:
        file.truncate(10 << 30)
    refused(root, UnsafeModelError, "10,737,418,240 bytes")


def rewrite(graph: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    model = onnx.load(graph, load_external_data=False)
    change(model)
    graph.write_bytes(model.SerializeToString())


def weight(model: onnx.ModelProto, name: str = "conv_in.weight") -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def set_dims(*dims: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        tensor = weight(model)
        del tensor.dims[:]
        tensor.dims.extend(dims)

    return change


def add_node(op: str, domain: str = "", **attributes: object) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        node = onnx.helper.make_node(op, [], ["unused"], domain=domain, **attributes)
        model.graph.node.append(node)

    return change


def add_constant(**fields: object) -> Callable[[onnx.ModelProto], None]:
    """A Constant node whose tensor says that its data is elsewhere."""
    tensor = onnx.TensorProto(name="c", data_type=1, dims=[1], data_location=1)
    for key, value in fields.items():
        tensor.external_data.add(key=key, value=str(value))
    return add_node("Constant", value=tensor)


def nested(model: onnx.ModelProto) -> None:
    tensor = onnx.TensorProto(name="inner", data_type=1, dims=[1], data_location=1)
    tensor.external_data.add(key="location", value="/etc/hostname")
    inner = onnx.helper.make_graph([], "inner", [], [], [tensor])
    add_node("If", then_branch=inner, else_branch=inner)(model)


def sparse(model: onnx.ModelProto) -> None:
    entry = model.graph.sparse_initializer.add(dims=[4])
    entry.values.CopyFrom(onnx.TensorProto(name="v", data_type=1, dims=[1], data_location=1))
    entry.values.external_data.add(key="location", value="../../x")
    entry.indices.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.np.zeros(1, "i8"), "i"))


def many_nodes(model: onnx.ModelProto) -> None:
    model.graph.node.extend([onnx.NodeProto(op_type="Identity")] * 20_001)


def rank_bomb(model: onnx.ModelProto) -> None:
    value = model.graph.value_info.add(name="bomb")
    for _ in range(9):
        value.type.tensor_type.shape.dim.add(dim_value=1)


def float_fields(model: onnx.ModelProto) -> None:
    tensor = weight(model)
    tensor.ClearField("raw_data")
    tensor.float_data.extend([1.0, 2.0])


def sequence_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].CopyFrom(
        onnx.helper.make_tensor_sequence_value_info("sample", onnx.TensorProto.FLOAT, None)
    )


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        (set_dims(8, 4, 3, 4), ModelFormatError, "needs 1,536 bytes but has 1,152"),
        (set_dims(-1, 4, 3, 3), UnsafeModelError, "dimension of -1"),
        (set_dims(2**31, 4, 3, 3), UnsafeModelError, "dimension of 2,147,483,648"),
        (set_dims(*[1] * 9), UnsafeModelError, "rank 9"),
        # 2^64 elements: wraps to 0 in 64 bits.
        (set_dims(2**30, 2**30, 2**4), ModelFormatError, "needs 73,786,976,294,838,206,464 bytes"),
        (float_fields, ModelFormatError, "needs 288 values but has 2"),
        (lambda m: setattr(weight(m), "data_type", 99), UnsupportedModelError, "type 99"),
        (lambda m: setattr(weight(m), "data_type", 8), ModelFormatError, "strings"),
        (add_node("Loop"), UnsupportedModelError, "'Loop'"),
        (add_node("Scan"), UnsupportedModelError, "'Scan'"),
        (add_node("Evil", "com.example"), UnsupportedModelError, "'com.example::Evil'"),
        (add_constant(location="/etc/hostname"), UnsafeModelError, "'/etc/hostname'"),
        (nested, UnsafeModelError, "'/etc/hostname'"),
        (sparse, UnsafeModelError, "'../../x'"),
        (many_nodes, UnsafeModelError, "20,0"),
        (rank_bomb, UnsafeModelError, "'bomb' has a rank above 8"),
        (lambda m: m.functions.add(name="f"), UnsafeModelError, "1 local functions"),
        (sequence_input, UnsupportedModelError, "'sample' is not a plain tensor"),
        (lambda m: m.graph.ClearField("output"), ModelFormatError, "no outputs"),
        (lambda m: m.ClearField("ir_version"), ModelFormatError, "no version"),
    ],
)
def test_hostile_graphs(
    root: Path, change: Callable[[onnx.ModelProto], object], kind: type[ModelError], text: str
) -> None:
    rewrite(root / "unet/model.onnx", change)
    error = refused(root, kind, text)
    assert error.details["component"] == "unet"


def test_names_that_are_not_text(root: Path) -> None:
    graph = root / "unet/model.onnx"
    graph.write_bytes(graph.read_bytes().replace(b"encoder_hidden_states", b"\xff" * 21))
    refused(root, ModelFormatError, "not UTF-8")


# --- the border of graphs -----------------------------------------------------------------------


def rename(model: onnx.ModelProto, old: str, new: str) -> None:
    for value in (*model.graph.input, *model.graph.output):
        value.name = new if value.name == old else value.name


def test_an_unexpected_input_name(root: Path) -> None:
    rewrite(root / "unet/model.onnx", lambda m: rename(m, "sample", "x"))
    refused(root, UnsupportedModelError, "has no input 'sample' (inputs: 'x', 'timestep', ")


def test_an_input_that_nothing_feeds(root: Path) -> None:
    extra = onnx.helper.make_tensor_value_info("text_embeds", 1, ["b", 1280])
    rewrite(root / "unet/model.onnx", lambda m: m.graph.input.append(extra))
    refused(root, UnsupportedModelError, "unknown inputs 'text_embeds'")


def test_an_unexpected_dtype(root: Path) -> None:
    def change(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT

    rewrite(root / "text_encoder/model.onnx", change)
    refused(root, UnsupportedModelError, "'input_ids' is float32, allowed are int64, int32")


# --- external data ------------------------------------------------------------------------------


def set_external(**fields: object) -> Callable[[onnx.ModelProto], None]:
    """Replaces keys of the external data of the first convolution; None removes one."""

    def change(model: onnx.ModelProto) -> None:
        tensor = weight(model)
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
    def change(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if tensor.external_data:
                kept = [e for e in tensor.external_data if e.key == "location"]
                del tensor.external_data[:]
                tensor.external_data.extend(kept)
                tensor.dims[:] = [1] if len(tensor.dims) else []
                break

    model = onnx.load(external / "vae_encoder/model.onnx", load_external_data=False)
    change(model)
    assert [e.key for e in model.graph.initializer[0].external_data] == ["location"]


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


# --- anything at all ----------------------------------------------------------------------------


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


@pytest.mark.parametrize("seed", range(8))
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
