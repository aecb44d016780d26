"""One fused operator in a graph of its own, and bfloat16 in NumPy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from textopia_fast import _core, _ort

UNITS = ("amx_bf16", "avx512_bf16", "scalar")


def each_unit():
    """Parametrises over the matrix units; those that this machine lacks are skipped by name."""
    return pytest.mark.parametrize(
        "unit",
        [
            pytest.param(
                unit,
                marks=pytest.mark.skipif(
                    unit not in _core.supported_matrix_units(), reason=f"no {unit} here"
                ),
            )
            for unit in UNITS
        ],
    )


def to_bf16(values: np.ndarray) -> np.ndarray:
    """Bits of bfloat16 as uint16, round to nearest even."""
    return _core.float_to_bfloat16("scalar", np.ascontiguousarray(values, np.float32))


def from_bf16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def rounded(values: np.ndarray) -> np.ndarray:
    """float32 values that bfloat16 can hold."""
    return from_bf16(to_bf16(values))


def error(found: np.ndarray, exact: np.ndarray) -> float:
    """Relative L2 error."""
    return float(np.linalg.norm(found - exact) / max(np.linalg.norm(exact), 1e-30))


def assert_as_good_as_rounding(found: np.ndarray, exact: np.ndarray, factor: float = 2.0) -> None:
    """The error is at most `factor` of what rounding the exact result to bfloat16 costs.

    A single value may round without error: half a unit of the type is allowed at least.
    """
    assert found.shape == exact.shape
    assert error(found, exact) <= factor * max(error(rounded(exact), exact), 2.0**-10)


@contextmanager
def matrix_unit(name: str) -> Iterator[None]:
    before = _core.active_matrix_unit()
    _core.set_matrix_unit(name)
    try:
        yield
    finally:
        _core.set_matrix_unit(before)


def _element_type(array: np.ndarray) -> int:
    """NumPy has no bfloat16: uint16 holds its bits."""
    return {
        np.dtype(np.float32): TensorProto.FLOAT,
        np.dtype(np.float16): TensorProto.FLOAT16,
        np.dtype(np.uint16): TensorProto.BFLOAT16,
    }[array.dtype]


def graph(
    op: str,
    inputs: Mapping[str, np.ndarray | None],
    constants: Mapping[str, np.ndarray | onnx.TensorProto],
    attributes: Mapping[str, Any],
    rank: int,
) -> bytes:
    """y = op(inputs and constants in their order; None is left out), any sizes.

    uint16 inputs are bfloat16; uint16 constants are packed weights.
    """
    order = [*inputs]
    order[1:1] = list(constants) if op != "Attention" else []
    # the weight comes second, further constants after it
    free = [
        helper.make_tensor_value_info(name, _element_type(value), [None] * value.ndim)
        for name, value in inputs.items()
        if value is not None
    ]
    held = [
        value
        if isinstance(value, onnx.TensorProto)
        else helper.make_tensor(
            name,
            TensorProto.UINT16 if value.dtype == np.uint16 else TensorProto.FLOAT,
            value.shape,
            value.tobytes(),
            raw=True,
        )
        for name, value in constants.items()
    ]
    names = [name if inputs.get(name, 0) is not None else "" for name in order]
    first = next(iter(inputs.values()))
    node = helper.make_node(op, names, ["y"], name="node", domain="ai.textopia", **attributes)
    output = helper.make_tensor_value_info("y", _element_type(first), [None] * rank)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.textopia", 1)]
    made = helper.make_graph([node], "fused", free, [output], held)
    return helper.make_model(made, opset_imports=opsets, ir_version=9).SerializeToString()


def session(
    unit: str,
    op: str,
    inputs: Mapping[str, np.ndarray | None],
    constants: Mapping[str, np.ndarray | onnx.TensorProto],
    *,
    rank: int,
    threads: int = 2,
    plans: _core.PlanSource | None = None,
    **attributes: Any,
) -> _core.Session:
    with matrix_unit(unit):
        model = graph(op, inputs, constants, attributes, rank)
        return _ort.create_session(model, label="fused", threads=threads, plans=plans)


def run(
    unit: str,
    op: str,
    inputs: Mapping[str, np.ndarray | None],
    constants: Mapping[str, np.ndarray | onnx.TensorProto],
    *,
    rank: int,
    **attributes: Any,
) -> np.ndarray:
    """The output as float32; bfloat16 is widened."""
    made = session(unit, op, inputs, constants, rank=rank, **attributes)
    feeds = {name: value for name, value in inputs.items() if value is not None}
    y = made.run(feeds)["y"]
    return from_bf16(y) if y.dtype == np.uint16 else y
