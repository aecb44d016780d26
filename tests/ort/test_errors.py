"""Everything that can be wrong with a graph or what is fed to it ends in a typed error."""

from __future__ import annotations

import os

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.ort import graphs
from textopia_fast import _core, _ort, errors

X = np.ones((2, 16), np.float32)


def test_missing_file(tmp_path):
    path = tmp_path / "nowhere.onnx"
    with pytest.raises(errors.ModelNotFoundError, match="unet: ") as caught:
        _ort.create_session(path, label="unet")
    assert caught.value.details["component"] == "unet"
    assert str(path) in caught.value.details["cause"]


def test_missing_external_data(tmp_path):
    path = graphs.save_with_external_data(tmp_path, np.ones((64, 8), np.float32))
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(errors.ModelError, match=r"weights\.bin"):
        _ort.create_session(path, label="unet")


def test_truncated_external_data(tmp_path):
    path = graphs.save_with_external_data(tmp_path, np.ones((64, 8), np.float32))
    (tmp_path / "weights.bin").write_bytes(b"\0" * 100)
    with pytest.raises(errors.ModelFormatError):
        _ort.create_session(path)


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 64, b"not a model", graphs.add()[: len(graphs.add()) // 2]],
    ids=["empty", "zeros", "text", "truncated"],
)
def test_files_that_are_no_graph(tmp_path, data):
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    for source in (path, data):
        with pytest.raises(errors.ModelFormatError) as caught:
            _ort.create_session(source, label="unet")
        assert caught.value.details["cause"]


def test_a_directory_is_no_graph(tmp_path):
    with pytest.raises(errors.ModelError):
        _ort.create_session(tmp_path)


@pytest.mark.parametrize(
    "model",
    [
        graphs.single("NoSuchOperator"),
        graphs.single("Sin", domain="some.vendor", domains=["some.vendor"]),
        graphs.single("Sin", ir_version=99),
        graphs.single("Sin", opset=999),
        graphs.single("Sin", dtype=TensorProto.BFLOAT16, opset=22),
    ],
    ids=["unknown op", "unknown domain", "newer format", "newer opset", "no kernel for the type"],
)
def test_graphs_that_need_something_missing(model):
    with pytest.raises(errors.UnsupportedModelError, match=r"^unet: the graph cannot be loaded"):
        _ort.create_session(model, label="unet")


@pytest.mark.parametrize(
    "position", [b"Sin", b"x", b"y", b"n"], ids=["op", "input", "output", "size"]
)
def test_texts_that_are_not_utf8(position):
    model = graphs.single("Sin").replace(position, b"\xff" * len(position))
    with pytest.raises((errors.ModelFormatError, errors.UnsupportedModelError)):
        _ort.create_session(model)


def test_a_path_that_is_not_utf8(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff.onnx"
    with open(path, "wb") as file:
        file.write(b"junk")
    with pytest.raises(errors.ModelFormatError, match="\N{REPLACEMENT CHARACTER}"):
        _ort.create_session(os.fsdecode(path))


@pytest.mark.parametrize("seed", range(4))
def test_damaged_graphs_end_in_typed_errors(seed):
    rng = np.random.default_rng(seed)
    whole = graphs.add()
    loaded = 0
    for _ in range(200):
        data = bytearray(whole)
        data[rng.integers(len(data))] = rng.integers(256)
        try:
            session = _ort.create_session(bytes(data), threads=1)
        except (errors.ModelFormatError, errors.UnsupportedModelError):
            continue
        assert repr(session.inputs + session.outputs)
        loaded += 1
    assert loaded < 200


def test_graph_with_a_dangling_input():
    model = graphs.model(
        [helper.make_node("Add", ["x", "nobody"], ["y"])],
        [graphs.value("x", graphs.FLOAT, ["n"])],
        [graphs.value("y", graphs.FLOAT, ["n"])],
    )
    with pytest.raises(errors.ModelFormatError, match="nobody"):
        _ort.create_session(model.SerializeToString())


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"threads": -1}, "threads: got -1"),
        ({"optimization_level": 7}, "optimization_level = 7"),
        ({"config": {"": "1"}}, "config"),
    ],
)
def test_impossible_options(options, found):
    with pytest.raises(errors.ConfigurationError, match=found):
        _ort.create_session(graphs.add(), **options)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "missing inputs: 'a', 'b'"),
        ({"a": X}, "missing inputs: 'b'"),
        ({"a": X, "c": X}, "no input 'c', it has 'a', 'b'"),
        ({"a": X, "b": X.astype(np.float64)}, "'b' has dtype float64, allowed is float32"),
        ({"a": X, "b": X.astype(np.uint16)}, "'b' has dtype uint16, allowed is float32"),
        ({"a": X, "b": X.astype(">f4")}, "'b' has dtype >f4"),
        ({"a": X, "b": np.array(["text"])}, "'b' has dtype <U4, allowed is float32"),
        ({"a": X, "b": X.tolist()}, "'b' is a list, allowed is a numpy.ndarray"),
        ({"a": X, "b": X[:, :15]}, r"'b' has shape \[2,15\], allowed is \[n,16\]"),
        ({"a": X, "b": X[0]}, r"'b' has shape \[16\], allowed is \[n,16\]"),
    ],
)
def test_feeds_that_do_not_fit(feeds, message):
    session = _ort.create_session(graphs.add(), label="unet")
    with pytest.raises(errors.InvalidRequestError, match="^unet: .*" + message):
        session.run(feeds)


def test_types_that_cannot_be_bound():
    session = _ort.create_session(graphs.identities({"s": TensorProto.STRING}))
    assert session.inputs[0].dtype == "string"
    with pytest.raises(errors.InvalidRequestError, match="dtype <U1, which the core does not"):
        session.run({"in_s": np.array([["a"], ["b"]])})
    with pytest.raises(errors.InvalidRequestError, match="string, which cannot be bound"):
        session.run({"in_s": np.ones((2, 1), np.uint8)})
    unsigned = _ort.create_session(graphs.identities({"u": TensorProto.UINT16}))
    with pytest.raises(errors.InvalidRequestError, match="uint16, which cannot be bound"):
        unsigned.run({"in_u": np.ones((2, 1), np.uint8)})


def test_failure_inside_a_graph():
    session = _ort.create_session(
        graphs.model(
            [helper.make_node("MatMul", ["a", "b"], ["y"], name="the_node")],
            [
                graphs.value("a", graphs.FLOAT, ["n", "k"]),
                graphs.value("b", graphs.FLOAT, ["j", "m"]),
            ],
            [graphs.value("y", graphs.FLOAT, ["n", "m"])],
        ).SerializeToString(),
        label="unet",
    )
    with pytest.raises(errors.ExecutionError, match=r"^unet: the graph failed") as caught:
        session.run({"a": X, "b": X})
    assert "the_node" in caught.value.details["cause"]
    result = session.run({"a": X, "b": X.T.copy()})["y"]  # it stays usable
    np.testing.assert_array_equal(result, np.full((2, 2), 16, np.float32))


def test_memory_that_does_not_exist():
    session = _ort.create_session(
        graphs.model(
            [helper.make_node("Expand", ["x", "shape"], ["y"])],
            [graphs.value("x", graphs.FLOAT, [1]), graphs.value("shape", TensorProto.INT64, [2])],
            [graphs.value("y", graphs.FLOAT, ["n", "m"])],
        ).SerializeToString()
    )
    one = np.ones(1, np.float32)
    with pytest.raises(errors.OutOfMemoryError):
        session.run({"x": one, "shape": np.array([2**22, 2**22])})  # 64 TiB
    assert session.run({"x": one, "shape": np.array([2, 3])})["y"].shape == (2, 3)


def test_bindings_name_what_is_wrong():
    binding = _core.Binding(_ort.create_session(graphs.add(), label="unet"))
    binding.input("a", X)
    binding.input("b", X)
    with pytest.raises(errors.InvalidRequestError, match="no output is bound, allowed are 'y'"):
        binding.run()
    with pytest.raises(errors.InvalidRequestError, match="no output 'z', it has 'y'"):
        binding.output("z", X.copy())
    with pytest.raises(errors.InvalidRequestError, match="dtype float16, allowed is float32"):
        binding.output("y", X.astype(np.float16))
    with pytest.raises(errors.InvalidRequestError, match=r"\[2,3\], allowed is \[n,16\]"):
        binding.output("y", np.empty((2, 3), np.float32))
    with pytest.raises(errors.InvalidRequestError, match="writable contiguous"):
        binding.output("y", np.empty((2, 32), np.float32)[:, ::2])
    binding.output("y", np.empty((3, 16), np.float32))
    with pytest.raises(errors.ExecutionError):
        binding.run()
    y = np.empty((2, 16), np.float32)
    binding.output("y", y)
    binding.run()
    np.testing.assert_array_equal(y, 2 * X)


def test_run_repeatedly_wants_a_count():
    session = _ort.create_session(graphs.add())
    with pytest.raises(errors.InvalidRequestError, match="count = 0"):
        session.run_repeatedly({"a": X, "b": X}, 0)


def test_errors_print_nothing(capfd, tmp_path):
    for source in (tmp_path / "nowhere.onnx", b"junk", graphs.single("NoSuchOperator")):
        with pytest.raises(errors.ModelError):
            _ort.create_session(source)
    session = _ort.create_session(graphs.add())
    with pytest.raises(errors.InvalidRequestError):
        session.run({"a": X})
    binding = _core.Binding(session)
    binding.input("a", X)
    binding.input("b", np.ones((3, 16), np.float32))
    binding.output("y", X.copy())
    with pytest.raises(errors.ExecutionError):
        binding.run()
    assert capfd.readouterr() == ("", "")
