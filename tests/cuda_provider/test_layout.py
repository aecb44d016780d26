"""prefer_nhwc: the convolutions of compiled graphs without the transposes around them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tests.cuda_provider.graphs import model_of
from textopia_fast import _core


def compiled_block(dtype: int) -> bytes:
    """Two convolutions as the graph compiler writes them for a GPU: channels last, NCHW inside."""
    numpy = helper.tensor_dtype_to_np_dtype(dtype)
    weights = {f"w{i}": np.ones((64, 64, 3, 3), numpy) for i in range(2)}
    weights["b"] = np.ones(64, numpy)
    nodes: list[onnx.NodeProto] = []
    for i, source in enumerate(("x", "silu")):
        nodes += [
            helper.make_node("Transpose", [source], [f"first{i}"], perm=[0, 3, 1, 2]),
            helper.make_node("Conv", [f"first{i}", f"w{i}", "b"], [f"conv{i}"], pads=[1, 1, 1, 1]),
            helper.make_node("Transpose", [f"conv{i}"], [f"last{i}"], perm=[0, 2, 3, 1]),
        ]
        if i == 0:
            nodes.append(helper.make_node("Sigmoid", ["last0"], ["sigmoid"]))
            nodes.append(helper.make_node("Mul", ["last0", "sigmoid"], ["silu"]))
    nodes.append(helper.make_node("Add", ["last1", "last0"], ["y"]))
    shape = ["rows", 16, 16, 64]
    return model_of(nodes, {"x": shape}, {"y": shape}, weights, dtype)


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("prefers_nhwc", ["0", "1"])
def test_transposes_around_convolutions(fake, dtype, prefers_nhwc):
    session = _core.Session.from_memory(
        compiled_block(dtype), gpu=fake.gpu(), cuda_options={"prefer_nhwc": prefers_nhwc}
    )
    numpy = helper.tensor_dtype_to_np_dtype(dtype)
    fake.clear()
    session.run({"x": np.ones((2, 16, 16, 64), numpy)})
    kernels = [line for line in fake.calls() if line.startswith("cudaLaunchKernel")]
    assert fake.count("cudnnBackendExecute") == 2
    assert any("Transpose" in kernel for kernel in kernels) == (prefers_nhwc == "0")
