"""Sessions and bindings: what goes in and comes out of graphs."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest
from onnx import TensorProto, helper

from tests.ort import graphs
from textopia_fast import _core, _ort

DTYPES = {
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "float16": TensorProto.FLOAT16,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}


def ramp(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def test_runs_from_a_file_and_from_memory(tmp_path):
    path = tmp_path / "add.onnx"
    path.write_bytes(graphs.add())
    a, b = ramp(3, 16), ramp(3, 16) * 2
    for source in (path, str(path), graphs.add()):
        session = _ort.create_session(source)
        np.testing.assert_array_equal(session.run({"a": a, "b": b})["y"], a + b)


def test_label_defaults_to_the_path(tmp_path):
    path = tmp_path / "add.onnx"
    path.write_bytes(graphs.add())
    assert _ort.create_session(path).label == str(path)
    assert _ort.create_session(path, label="unet").label == "unet"
    assert _ort.create_session(graphs.add()).label == "graph"


def test_border_names_types_and_shapes():
    session = _ort.create_session(
        graphs.model(
            [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.INT64)],
            [graphs.value("x", TensorProto.FLOAT16, ["batch", 4, None])],
            [graphs.value("y", TensorProto.INT64, ["batch", 4, None])],
        ).SerializeToString()
    )
    (x,) = session.inputs
    (y,) = session.outputs
    assert (x.name, x.dtype, x.shape) == ("x", "float16", ["batch", 4, None])
    assert (y.name, y.dtype, y.shape) == ("y", "int64", ["batch", 4, None])


def test_every_dtype_crosses_unchanged():
    session = _ort.create_session(graphs.identities(DTYPES))
    values = np.array([[0, 1, 2], [3, 4, 5]])
    feeds = {f"in_{name}": values.astype(name) for name in DTYPES}
    results = session.run(feeds)
    for name in DTYPES:
        assert results[f"out_{name}"].dtype == np.dtype(name)
        np.testing.assert_array_equal(results[f"out_{name}"], feeds[f"in_{name}"])


def test_bfloat16_crosses_as_its_bits():
    session = _ort.create_session(graphs.identities({"b": TensorProto.BFLOAT16}))
    assert session.inputs[0].dtype == "bfloat16"
    bits = np.array([[0x3F80, 0xC000], [0x7F80, 1]], np.uint16)  # 1, -2, inf, a subnormal
    np.testing.assert_array_equal(session.run({"in_b": bits})["out_b"], bits)


@pytest.mark.parametrize("shape", [(1, 16), (7, 16), (0, 16)])
def test_free_sizes_may_change_between_runs(shape):
    session = _ort.create_session(graphs.add())
    session.run({"a": ramp(2, 16), "b": ramp(2, 16)})
    a = np.ones(shape, np.float32)
    np.testing.assert_array_equal(session.run({"a": a, "b": a})["y"], a + a)


def test_scalars_and_sizes_that_depend_on_the_data():
    session = _ort.create_session(
        graphs.model(
            [helper.make_node("NonZero", ["x"], ["y"])],
            [graphs.value("x", graphs.FLOAT, ["n"])],
            [graphs.value("y", TensorProto.INT64, [1, "found"])],
        ).SerializeToString()
    )
    for values in ([1, 0, 2], [0, 0, 0], [1, 1, 1]):
        x = np.array(values, np.float32)
        np.testing.assert_array_equal(session.run({"x": x})["y"], [np.flatnonzero(x)])
    scalar = _ort.create_session(graphs.add(()))
    result = scalar.run({"a": np.array(1.5, np.float32), "b": np.array(2, np.float32)})["y"]
    assert result.shape == ()
    assert result == 3.5


def test_strided_and_read_only_arrays_are_taken():
    session = _ort.create_session(graphs.add())
    a = ramp(16, 3).T
    b = ramp(3, 32)[:, ::2]
    fixed = np.ascontiguousarray(a)
    fixed.flags.writeable = False
    np.testing.assert_array_equal(session.run({"a": a, "b": b})["y"], a + b)
    np.testing.assert_array_equal(session.run({"a": fixed, "b": fixed})["y"], 2 * a)


def test_results_outlive_the_session():
    session = _ort.create_session(graphs.add())
    first = session.run({"a": ramp(1, 16), "b": ramp(1, 16)})["y"]
    session.run({"a": np.zeros((1, 16), np.float32), "b": ramp(1, 16)})
    del session
    gc.collect()
    np.testing.assert_array_equal(first, 2 * ramp(1, 16))


def test_external_data_is_read_from_beside_the_graph(tmp_path):
    weights = ramp(64, 8)
    session = _ort.create_session(graphs.save_with_external_data(tmp_path, weights))
    assert (tmp_path / "weights.bin").stat().st_size >= weights.nbytes
    np.testing.assert_array_equal(session.run({"x": weights})["y"], 2 * weights)


def test_without_a_memory_pattern_shapes_come_and_go():
    session = _ort.create_session(graphs.matmul_chain(8, 5, "n"), memory_pattern=False)
    for rows in (3, 1, 700, 3, 700, 700):
        x = ramp(rows, 8)
        np.testing.assert_array_equal(session.run({"x": x})["y"], x)


@pytest.mark.parametrize("level", [0, 1, 2, 3, 99])
def test_optimization_levels_and_config_entries(level):
    session = _ort.create_session(
        graphs.matmul_chain(8, 3),
        threads=2,
        optimization_level=level,
        config={"session.intra_op.allow_spinning": "0"},
    )
    np.testing.assert_array_equal(session.run({"x": ramp(8, 8)})["y"], ramp(8, 8))


def test_a_binding_reads_and_writes_the_same_memory_at_every_run():
    binding = _core.Binding(_ort.create_session(graphs.add()))
    a, b, y = ramp(2, 16), ramp(2, 16), np.empty((2, 16), np.float32)
    binding.input("a", a)
    binding.input("b", b)
    binding.output("y", y)
    for _ in range(3):
        a += 1
        binding.run()
        np.testing.assert_array_equal(y, a + b)


def test_a_binding_keeps_its_arrays_and_session_alive():
    binding = _core.Binding(_ort.create_session(graphs.add()))
    binding.input("a", ramp(2, 16))
    binding.input("b", ramp(2, 16))
    y = np.empty((2, 16), np.float32)
    binding.output("y", y)
    gc.collect()
    binding.run()
    np.testing.assert_array_equal(y, 2 * ramp(2, 16))


def test_a_binding_can_be_bound_anew():
    binding = _core.Binding(_ort.create_session(graphs.add()))
    for rows in (1, 5, 2):
        y = np.empty((rows, 16), np.float32)
        binding.input("a", ramp(rows, 16))
        binding.input("b", ramp(rows, 16))
        binding.output("y", y)
        binding.run()
        np.testing.assert_array_equal(y, 2 * ramp(rows, 16))


def test_run_repeatedly_measures_and_checks_its_count():
    session = _ort.create_session(graphs.add())
    feeds = {"a": ramp(2, 16), "b": ramp(2, 16)}
    assert session.run_repeatedly(feeds, 10) > 0


def test_many_threads_share_a_session():
    session = _ort.create_session(graphs.add(), threads=2)
    failures: list[object] = []

    def work(number: int) -> None:
        try:
            for i in range(50):
                a = np.full((1 + i % 3, 16), number, np.float32)
                result = session.run({"a": a, "b": a})["y"]
                if not np.array_equal(result, a + a):
                    failures.append((number, i, result))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_threads_take_turns_on_one_binding():
    binding = _core.Binding(_ort.create_session(graphs.matmul_chain(16, 20), threads=1))
    y = np.empty((16, 16), np.float32)
    binding.input("x", ramp(16, 16))
    binding.output("y", y)
    threads = [
        threading.Thread(target=lambda: [binding.run() for _ in range(50)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(y, ramp(16, 16))
