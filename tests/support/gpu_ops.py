"""One operator of ours in a session of an emulated GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx

from tests.support.fused import from_bf16, graph, to_bf16
from textopia_fast import _core, _ort

# What rounding the result costs, relative to its largest value: the fake computes in float64.
ROUNDING = {"float32": 2e-6, "float16": 1e-3, "bfloat16": 8e-3}


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """Values as the graph takes them; bfloat16 as uint16 bits."""
    return to_bf16(values) if dtype == "bfloat16" else values.astype(dtype)


def valued(array: np.ndarray) -> np.ndarray:
    return from_bf16(array) if array.dtype == np.uint16 else array.astype(np.float32)


def session(
    gpu: _core.Gpu,
    op: str,
    inputs: Mapping[str, np.ndarray | None],
    constants: Mapping[str, np.ndarray],
    *,
    rank: int,
    fixed: bool = False,
    **attributes: Any,
) -> _core.Session:
    """fixed: the graph says the sizes of its inputs."""
    model = graph(op, inputs, constants, attributes, rank)
    if fixed:
        made = onnx.load_from_string(model)
        for info in made.graph.input:
            for size, dim in zip(
                inputs[info.name].shape, info.type.tensor_type.shape.dim, strict=True
            ):
                dim.dim_value = size
        model = made.SerializeToString()
    return _ort.create_session(model, label="fused", threads=1, gpu=gpu)


def run(
    gpu: _core.Gpu,
    op: str,
    inputs: Mapping[str, np.ndarray | None],
    constants: Mapping[str, np.ndarray],
    *,
    rank: int,
    **attributes: Any,
) -> np.ndarray:
    """The output as float32."""
    made = session(gpu, op, inputs, constants, rank=rank, **attributes)
    feeds = {name: value for name, value in inputs.items() if value is not None}
    return valued(made.run(feeds)["y"])


def assert_rounded(found: np.ndarray, exact: np.ndarray, dtype: str) -> None:
    """No value misses by more than rounding costs."""
    assert found.shape == exact.shape
    scale = np.abs(exact).max(initial=1e-30)
    np.testing.assert_allclose(found, exact, rtol=0, atol=ROUNDING[dtype] * scale)
