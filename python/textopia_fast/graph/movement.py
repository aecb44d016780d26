"""Chains of Reshape and Transpose: where each element of their end comes from.

Whether a chain splits attention heads, or turns an image into tokens, is not guessed from the form
of its nodes: the chain is carried out on a counting array, at small sizes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .dims import Atom, Dim, Dims, Size
from .edit import attribute, dims_of, is_op

__all__ = ["Chain", "chains_to", "same_order"]

_RESHAPING = ("Reshape", "Unsqueeze", "Squeeze", "Flatten", "Identity")
_MAX_ELEMENTS = 1 << 22
_MAX_LENGTH = 16
# Different sizes for different names, so that swapped axes show.
_TRIALS = ((2, 3, 5, 7, 11, 13, 17), (3, 4, 2, 5, 7, 9, 11))


@dataclass(frozen=True)
class Chain:
    """Nodes that carry `source` to the value asked for by moving elements only."""

    source: ir.Value
    nodes: tuple[ir.Node, ...]


def chains_to(value: ir.Value) -> Iterator[Chain]:
    """Chains that end in `value`: first the empty one, then ever longer ones."""
    nodes: tuple[ir.Node, ...] = ()
    yield Chain(value, nodes)
    while len(nodes) < _MAX_LENGTH:
        node = value.producer()
        if node is None or not is_op(node, "Transpose", *_RESHAPING) or node.inputs[0] is None:
            return
        value, nodes = node.inputs[0], (node, *nodes)
        if dims_of(value) is None or dims_of(node.outputs[0]) is None:
            return
        yield Chain(value, nodes)


def same_order(chain: Chain, other: Sequence[tuple[str, Dims | Sequence[int]]]) -> bool:
    """Whether `chain` moves elements as the steps `other` do, at any size.

    Args:
        chain: From `chains_to`.
        other: ("reshape", sizes) or ("transpose", order), carried out on the same source.
    """
    dims = dims_of(chain.source)
    if dims is None:
        return False
    own = [_step(node) for node in chain.nodes]
    sizes = [dims] + [step[1] for step in [*own, *other] if step[0] == "reshape"]
    atoms = sorted({atom for sizes_ in sizes for size in sizes_ for atom in _atoms(size)}, key=str)
    if len(atoms) > len(_TRIALS[0]):
        return False
    for trial in _TRIALS:
        values = dict(zip(atoms, trial, strict=False))
        shape = [_evaluate(size, values) for size in dims]
        count = int(np.prod(shape, dtype=np.float64))
        if not 0 < count <= _MAX_ELEMENTS:
            return False
        start = np.arange(count).reshape(shape)
        try:
            ours, theirs = (_carry_out(start, steps, values) for steps in (own, other))
        except ValueError:  # sizes that do not fit together
            return False
        if ours.shape != theirs.shape or not np.array_equal(ours, theirs):
            return False
    return True


Step = tuple[str, "Dims | Sequence[int]"]


def _step(node: ir.Node) -> Step:
    if node.op_type == "Transpose":
        rank = len(dims_of(node.outputs[0]) or ())
        return "transpose", attribute(node, "perm") or range(rank)[::-1]
    return "reshape", dims_of(node.outputs[0]) or ()


def _atoms(size: Size) -> Iterator[Atom]:
    for factors, _ in size.terms if isinstance(size, Dim) else ():
        yield from factors


def _evaluate(size: Size, values: Mapping[Atom, int]) -> int:
    """The polynomial at `values`; a quotient counts as a free size like any other."""
    if isinstance(size, int):
        return size
    return sum(n * math.prod(values[atom] for atom in atoms) for atoms, n in size.terms)


def _carry_out(array: np.ndarray, steps: Sequence[Step], values: Mapping[Atom, int]) -> np.ndarray:
    for kind, argument in steps:
        if kind == "transpose":
            array = array.transpose([int(axis) for axis in argument])  # type: ignore[arg-type]
        else:
            array = array.reshape([_evaluate(size, values) for size in argument])
    return array
