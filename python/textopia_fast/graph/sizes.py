"""Writes sizes into a graph: the nodes that compute them, and reshapes to sizes given as `Dims`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from .dims import Dim, Dims, Quotient, Size, Symbol, symbols_of
from .edit import Editor, dims_of, present

__all__ = ["SizeWriter"]


class SizeWriter:
    """Computes sizes from the shapes of the graph's inputs, each only once, before all other nodes.

    It serves one pass: nodes that come to be unused are removed at the end of a pass.
    """

    def __init__(self, editor: Editor) -> None:
        self._editor = editor
        self._inputs = set(editor.graph.inputs)
        self._made: dict[Size, ir.Value] = {}
        self._shapes: dict[ir.Value, ir.Value] = {}
        self._vectors: dict[Dims, ir.Value] = {}
        self._last: ir.Node | None = None

    def can_write(self, dims: Sequence[Size]) -> bool:
        """Whether every free size can be read from an input of the graph."""
        sources = self._editor.shaper.sources
        return all(
            name in sources and sources[name][0] in self._inputs
            for size in dims
            for name in symbols_of(size)
        )

    def vector(self, dims: Sequence[Size]) -> ir.Value:
        """An int64 tensor that holds these sizes."""
        key = tuple(dims)
        if key not in self._vectors:
            if all(isinstance(size, int) for size in key):
                made = self._editor.store(np.array(key, np.int64), "sizes")
            else:
                parts = [self._size(size) for size in key]
                made = parts[0] if len(parts) == 1 else self._insert("Concat", *parts, axis=0)
            self._vectors[key] = made
        return self._vectors[key]

    def reshape(self, before: ir.Node, value: ir.Value, dims: Sequence[Size]) -> ir.Value | None:
        """`value` with these sizes; None where they cannot be computed."""
        old = dims_of(value)
        dims = tuple(dims)
        if old is not None and old == dims:
            return value
        target = list(dims)
        for axis, size in enumerate(target):
            if isinstance(size, Dim) and old is not None and axis < len(old) and old[axis] == size:
                target[axis] = 0
        free = [axis for axis, size in enumerate(target) if isinstance(size, Dim)]
        if free and not (self.can_write([target[axis] for axis in free[1:]])):
            return None
        if free:
            target[free[0]] = -1
        if 0 in dims:
            return None
        result: ir.Value = self._editor.op(before, "Reshape", value, self.vector(target))
        result.meta["dims"] = dims
        return result

    def _size(self, size: Size) -> ir.Value:
        """An int64 tensor of one element."""
        if size in self._made:
            return self._made[size]
        if isinstance(size, int):
            made = self._editor.store(np.array([size], np.int64), "size")
        else:
            total: ir.Value | None = None
            for atoms, coefficient in size.terms:
                factors = [self._atom(atom) for atom in atoms]
                if coefficient != 1 or not factors:
                    factors.append(self._size(coefficient))
                term = factors[0]
                for factor in factors[1:]:
                    term = self._insert("Mul", term, factor)
                total = term if total is None else self._insert("Add", total, term)
            made = present(total)  # a Dim has at least one term
        self._made[size] = made
        return made

    def _atom(self, atom: Symbol | Quotient) -> ir.Value:
        key = Dim((((atom,), 1),))
        if key not in self._made:
            if isinstance(atom, Symbol):
                value, axis = self._editor.shaper.sources[atom.name]
                index = self._editor.store(np.array([axis], np.int64), "axis")
                self._made[key] = self._insert("Gather", self._shape(value), index, axis=0)
            else:
                above, below = self._size(atom.numerator), self._size(atom.divisor)
                self._made[key] = self._insert("Div", above, below)
        return self._made[key]

    def _shape(self, value: ir.Value) -> ir.Value:
        if value not in self._shapes:
            self._shapes[value] = self._insert("Shape", value)
        return self._shapes[value]

    def _insert(self, op_type: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        graph = self._editor.graph
        node = self._editor.make(op_type, inputs, attributes)
        if self._last is None:
            graph.insert_before(graph[0], node)
        else:
            graph.insert_after(self._last, node)
        self._last = node
        return node.outputs[0]
