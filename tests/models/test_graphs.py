"""Graphs that are cut short, are none, or want too much."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from tests.models.spoiling import refused, rewrite, weight
from textopia_fast.errors import (
    ModelError,
    ModelFormatError,
    UnsafeModelError,
    UnsupportedModelError,
)


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
