"""The networks of this task, as ONNX graphs for us and as torch functions for the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SLOPE = np.float32(1e-4)
HALF = np.float32(0.5)


@dataclass(frozen=True)
class Network:
    """graph: inputs sample and timestep, one output. torch(): the same of (x, level) tensors."""

    graph: bytes
    torch: Callable[[], Callable[[Any, Any], Any]]


def trivial() -> Network:
    """0.5 * x + 0.0001 * t: costs next to nothing, so that what is timed is the loop."""
    nodes = [
        helper.make_node("Mul", ["timestep", "slope"], ["shift"]),
        helper.make_node("Mul", ["sample", "half"], ["scaled"]),
        helper.make_node("Add", ["scaled", "shift"], ["out_sample"]),
    ]
    graph = _graph(nodes, ["batch", 4, 64, 64], {"slope": SLOPE, "half": HALF})
    return Network(graph, lambda: lambda x, t: x * float(HALF) + t * float(SLOPE))


def convolutions(width: int = 32) -> Network:
    """Two 3x3 convolutions, 4 -> width -> 4, with SiLU between them."""
    rng = np.random.default_rng(2)
    first = rng.standard_normal((width, 4, 3, 3), np.float32) / 6
    second = rng.standard_normal((4, width, 3, 3), np.float32) / 17
    nodes = [
        helper.make_node("Conv", ["sample", "first"], ["wide"], pads=[1] * 4),
        helper.make_node("Sigmoid", ["wide"], ["gate"]),
        helper.make_node("Mul", ["wide", "gate"], ["silu"]),
        helper.make_node("Conv", ["silu", "second"], ["narrow"], pads=[1] * 4),
        helper.make_node("Mul", ["timestep", "slope"], ["shift"]),
        helper.make_node("Add", ["narrow", "shift"], ["out_sample"]),
    ]
    weights = {"first": first, "second": second, "slope": SLOPE}

    def build() -> Callable[[Any, Any], Any]:
        import torch
        from torch.nn.functional import conv2d, silu

        a, b = torch.from_numpy(first), torch.from_numpy(second)
        return lambda x, t: conv2d(silu(conv2d(x, a, padding=1)), b, padding=1) + t * float(SLOPE)

    return Network(_graph(nodes, ["batch", 4, 64, 64], weights), build)


def score_of_plane(width: int = 64) -> Network:
    """A score in two dimensions: 2 -> width -> width -> 2 with SiLU, minus x, divided by sigma^2.

    The graph's `timestep` is sigma.
    """
    rng = np.random.default_rng(4)
    sizes = [(2, width), (width, width), (width, 2)]
    weights = [rng.standard_normal(size, np.float32) / np.float32(size[0] ** 0.5) for size in sizes]
    nodes = [helper.make_node("Mul", ["timestep", "timestep"], ["variance"])]
    hidden = "sample"
    for i in range(2):
        nodes += [
            helper.make_node("MatMul", [hidden, f"w{i}"], [f"h{i}"]),
            helper.make_node("Sigmoid", [f"h{i}"], [f"gate{i}"]),
            helper.make_node("Mul", [f"h{i}", f"gate{i}"], [f"silu{i}"]),
        ]
        hidden = f"silu{i}"
    nodes += [
        helper.make_node("MatMul", [hidden, "w2"], ["clean"]),
        helper.make_node("Sub", ["clean", "sample"], ["away"]),
        helper.make_node("Div", ["away", "variance"], ["out_sample"]),
    ]

    def build() -> Callable[[Any, Any], Any]:
        import torch
        from torch.nn.functional import silu

        a, b, c = (torch.from_numpy(w) for w in weights)
        return lambda x, s: (silu(silu(x @ a) @ b) @ c - x) / (s * s)

    named = {f"w{i}": w for i, w in enumerate(weights)}
    return Network(_graph(nodes, ["batch", 2], named), build)


def _graph(nodes: list[onnx.NodeProto], shape: list[Any], constants: dict[str, Any]) -> bytes:
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "network",
            [
                helper.make_tensor_value_info("sample", TensorProto.FLOAT, shape),
                helper.make_tensor_value_info("timestep", TensorProto.FLOAT, []),
            ],
            [helper.make_tensor_value_info("out_sample", TensorProto.FLOAT, shape)],
            [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()
