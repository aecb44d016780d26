"""Gives an exported U-Net another form of its timestep input, as other exporters make it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# form: (dtype, axis or None)
FORMS = {
    "float scalar": (TensorProto.FLOAT, None),
    "int64 [steps]": (TensorProto.INT64, "steps"),
    "float [batch]": (TensorProto.FLOAT, "batch_size"),
    "int64 [batch]": (TensorProto.INT64, "batch_size"),
    "int64 scalar": (TensorProto.INT64, None),
    "float [1]": (TensorProto.FLOAT, 1),
}


def set_timestep_form(path: Path, form: str) -> None:
    """Rewrites the graph at `path`, whose timestep is a float scalar."""
    dtype, axis = FORMS[form]
    model = onnx.load(path)
    graph = model.graph
    old = next(value for value in graph.input if value.name == "timestep")
    position = list(graph.input).index(old)
    graph.input.remove(old)
    shape = [] if axis is None else [axis]
    graph.input.insert(position, helper.make_tensor_value_info("timestep", dtype, shape))
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == "timestep":
                node.input[i] = "timestep_scalar"
    graph.initializer.append(numpy_helper.from_array(np.array(0), "timestep_first"))
    graph.initializer.append(numpy_helper.from_array(np.array([-1]), "timestep_flat"))
    made = [
        helper.make_node("Reshape", ["timestep", "timestep_flat"], ["timestep_list"]),
        helper.make_node("Gather", ["timestep_list", "timestep_first"], ["timestep_one"]),
        helper.make_node("Cast", ["timestep_one"], ["timestep_scalar"], to=TensorProto.FLOAT),
    ]
    for node in reversed(made):
        graph.node.insert(0, node)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
