"""Small denoisers as ONNX graphs, with the same formula in NumPy."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = helper.make_opsetid("", 18)
ELEMENT = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "int64": TensorProto.INT64}


def tanh_network(
    *,
    real: str = "float32",
    time_dtype: str = "float32",
    time_shape: tuple[int | str, ...] = (),
    rows: int | str = "rows",
    has_condition: bool = True,
) -> bytes:
    """e = tanh(0.7 x + 0.002 t) + 0.5 mean_T(c): sample [rows, 4, h, w], timestep, context [rows,
    T, 4]."""
    weights = [
        numpy_helper.from_array(np.asarray(value, real), name)
        for name, value in (("gain", 0.7), ("time_gain", 0.002), ("half", 0.5))
    ]
    weights.append(numpy_helper.from_array(np.asarray([-1, 1, 1, 1], np.int64), "time_axes"))
    nodes = [
        helper.make_node("Cast", ["timestep"], ["t_real"], to=ELEMENT[real]),
        helper.make_node("Mul", ["t_real", "time_gain"], ["t_scaled"]),
        helper.make_node("Reshape", ["t_scaled", "time_axes"], ["t"]),
        helper.make_node("Mul", ["sample", "gain"], ["x"]),
        helper.make_node("Add", ["x", "t"], ["shifted"]),
    ]
    inputs = [
        helper.make_tensor_value_info("sample", ELEMENT[real], [rows, 4, "h", "w"]),
        helper.make_tensor_value_info("timestep", ELEMENT[time_dtype], list(time_shape)),
    ]
    if has_condition:
        inputs.append(helper.make_tensor_value_info("context", ELEMENT[real], [rows, "T", 4]))
        weights.append(numpy_helper.from_array(np.asarray([0, -1, 1, 1], np.int64), "c_shape"))
        nodes += [
            helper.make_node("Tanh", ["shifted"], ["wave"]),
            helper.make_node("ReduceMean", ["context", "one"], ["mean"], keepdims=0),
            helper.make_node("Reshape", ["mean", "c_shape"], ["c"]),
            helper.make_node("Mul", ["c", "half"], ["c_half"]),
            helper.make_node("Add", ["wave", "c_half"], ["out_sample"]),
        ]
        weights.append(numpy_helper.from_array(np.asarray([1], np.int64), "one"))
    else:
        nodes.append(helper.make_node("Tanh", ["shifted"], ["out_sample"]))
    outputs = [helper.make_tensor_value_info("out_sample", ELEMENT[real], [rows, 4, "h", "w"])]
    graph = helper.make_graph(nodes, "tanh_network", inputs, outputs, weights)
    model = helper.make_model(graph, opset_imports=[OPSET], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def tanh_formula(x: np.ndarray, t: float, context: np.ndarray | None = None) -> np.ndarray:
    """The same in NumPy, in the dtype of x."""
    out = np.tanh(0.7 * x + 0.002 * t)
    if context is not None:
        out = out + 0.5 * context.mean(axis=1)[:, :, None, None]
    return out
