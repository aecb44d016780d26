"""How much of a graph's arithmetic landed in fused operators, and why the rest did not."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from .dims import Dim, Size, evaluate, symbols_of
from .edit import DOMAIN, attribute, constant, dims_of, input_of, is_op
from .lowering import NARROW

__all__ = ["Coverage", "Leftover", "flops_of", "measure"]

_PER_ELEMENT = {"GroupNorm": 8, "Geglu": 8, "LayerNorm": 8, "Softmax": 8, "Erf": 8, "Sigmoid": 8}
_MOVES = (
    "Cast",
    "Concat",
    "ConstantOfShape",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Pad",
    "Range",
    "Reshape",
    "Resize",
    "Shape",
    "Slice",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
    "Where",
)


@dataclass(frozen=True)
class Leftover:
    """Nodes that run as standard operators.

    Attributes:
        op: The operator.
        count: How many nodes.
        flops: Their arithmetic at the measured size.
        reason: Why no pattern took them.
    """

    op: str
    count: int
    flops: float
    reason: str


@dataclass(frozen=True)
class Coverage:
    """Arithmetic of a graph at one size; a multiplication and an addition count as two.

    Attributes:
        sizes: The free sizes at which it was counted.
        flops: By operator; fused ones have the name that they have in the domain `ai.textopia`.
        fused: How many nodes of each fused operator there are.
        fused_flops: What of it is in fused operators.
        leftovers: What is not, most arithmetic first.
        unknown: Nodes whose sizes are not known, which are not counted.
    """

    sizes: Mapping[str, int]
    flops: Mapping[str, float]
    fused: Mapping[str, int]
    fused_flops: float
    leftovers: tuple[Leftover, ...]
    unknown: int

    @property
    def total(self) -> float:
        """All arithmetic."""
        return sum(self.flops.values())

    @property
    def share(self) -> float:
        """The part of the arithmetic in fused operators, 0 to 1."""
        return self.fused_flops / self.total if self.total else 1.0


def measure(graphs: list[ir.Graph], sizes: Mapping[str, int]) -> Coverage:
    """Counts the arithmetic of graphs whose sizes have been inferred.

    Args:
        graphs: The graphs of one network.
        sizes: Values of the free sizes by name, such as {"batch_size": 2, "height": 64}. Missing
            ones count as 1.
    """
    flops: defaultdict[str, float] = defaultdict(float)
    fused: Counter[str] = Counter()
    left: dict[tuple[str, str], tuple[int, float]] = {}
    fused_flops, unknown = 0.0, 0
    for node in (node for graph in graphs for node in graph):
        amount = flops_of(node, sizes)
        if amount is None:
            unknown += 1
            continue
        is_lowered = NARROW in node.meta  # by cuDNN and cuBLAS, in the target's type
        if node.domain == DOMAIN or (is_lowered and amount):
            flops[node.op_type] += amount
            fused[node.op_type] += 1
            fused_flops += amount
            continue
        if not amount:
            continue
        flops[node.op_type] += amount
        key = (node.op_type, _reason(node))
        count, sum_ = left.get(key, (0, 0.0))
        left[key] = (count + 1, sum_ + amount)
    leftovers = [Leftover(op, n, amount, why) for (op, why), (n, amount) in left.items()]
    leftovers.sort(key=lambda entry: -entry.flops)
    return Coverage(dict(sizes), dict(flops), dict(fused), fused_flops, tuple(leftovers), unknown)


def _count(value: ir.Value | None, sizes: Mapping[str, int]) -> float:
    dims = dims_of(value)
    if dims is None:
        raise KeyError
    return math.prod(_number(size, sizes) for size in dims)


def _number(size: Size, sizes: Mapping[str, int]) -> int:
    if not isinstance(size, Dim):
        return size
    return evaluate(size, {name: sizes.get(name, 1) for name in symbols_of(size)})


def flops_of(node: ir.Node, sizes: Mapping[str, int]) -> float | None:
    """The arithmetic of a node at these sizes; None where its own sizes are not known."""
    if not node.domain and node.op_type in _MOVES:
        return 0.0
    try:
        if node.domain == DOMAIN:
            return _fused_flops(node, sizes)
        result = _count(node.outputs[0], sizes)
        if is_op(node, "Conv"):
            weight = [_number(size, sizes) for size in dims_of(node.inputs[1]) or ()]
            return 2 * result * math.prod(weight[1:])
        if is_op(node, "MatMul", "Gemm"):
            dims = dims_of(node.inputs[0]) or (1,)
            depth = dims[0] if attribute(node, "transA", 0) else dims[-1]
            return 2 * result * _number(depth, sizes)
        if is_op(node, "Einsum"):
            return _einsum_flops(node, sizes)
        return result * _PER_ELEMENT.get(node.op_type, 1)
    except (LookupError, ValueError, ZeroDivisionError):
        return None


def _einsum_flops(node: ir.Node, sizes: Mapping[str, int]) -> float:
    letters: dict[str, int] = {}
    terms = attribute(node, "equation").replace(" ", "").partition("->")[0].split(",")
    for term, value in zip(terms, node.inputs, strict=True):
        dims = dims_of(value) or ()
        letters |= {letter: _number(d, sizes) for letter, d in zip(term, dims, strict=True)}
    return 2.0 * math.prod(letters.values())


def _fused_flops(node: ir.Node, sizes: Mapping[str, int]) -> float:
    result = _count(node.outputs[0], sizes)
    if node.op_type == "Conv":
        depth = int(attribute(node, "in_channels")) * int(attribute(node, "kernel")) ** 2
        return 2 * result * depth
    if node.op_type in ("Linear", "LinearGeglu"):
        columns = 2 if node.op_type == "LinearGeglu" else 1
        return 2 * result * columns * int(attribute(node, "in_features"))
    if node.op_type == "Attention":
        keys = input_of(node, 1)
        dims = dims_of(node.inputs[0] if keys is None else keys) or ()
        return 4 * result * _number(dims[1], sizes)
    return result * _PER_ELEMENT[node.op_type]


def _reason(node: ir.Node) -> str:
    """Why a node that costs something stayed as it is."""
    if "reason" in node.meta:
        return str(node.meta["reason"])
    if is_op(node, "Conv"):
        weight = constant(node.inputs[1])
        if weight is None:
            return "its weight is computed"
        if attribute(node, "group", 1) != 1:
            return "it has groups"
        kernel = "x".join(str(size) for size in list(weight.shape)[2:])
        return f"kernel {kernel}, strides, padding or dilation of another kind"
    if is_op(node, "MatMul"):
        return (
            "a product of two computed values"
            if constant(node.inputs[1]) is None
            else ("a matrix of another rank")
        )
    if is_op(node, "Gemm"):
        return "its matrix or bias is computed, or scaled"
    if dims_of(node.outputs[0]) is None:
        return "its sizes are not known"
    return "no fused operator computes this"
