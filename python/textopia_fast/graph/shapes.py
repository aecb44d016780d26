"""Shape inference with free sizes: what every value of a graph measures, as `Dims`.

Where integers are computed from sizes (the target of a Reshape, say), their values are known, too,
as sizes or numbers: the `content` of a value. Both live in the value's `meta`.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx_ir as ir

from .dims import Dim, Dims, Fact, fact_of
from .edit import MAX_CONTENT, attribute, dims_of, input_of, is_op, stored_sizes
from .rules import RULES, UnknownSizeError

__all__ = ["Shaper"]


class Shaper:
    """Infers sizes node by node, in the order of the graph.

    Attributes:
        sources: Where each free size can be read when the graph runs: a value and its axis.
        numbers: For the names of new values, one series for all graphs of a network.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.sources: dict[str, tuple[ir.Value, int]] = {}
        self.numbers = itertools.count(1)
        self._facts: list[Fact] = []
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None:
                value.meta["dims"] = stored_sizes(tensor)
        for value in graph.inputs:
            if not value.is_initializer():
                value.meta["dims"] = self.declared(value, named=True)

    def declared(self, value: ir.Value, named: bool = False) -> Dims | None:
        """Sizes as the file states them. Only the names of inputs' sizes are believed."""
        if value.shape is None:
            return None
        return tuple(
            size if isinstance(size, int) else self.free(value, axis, size.value if named else None)
            for axis, size in enumerate(value.shape)
        )

    def free(self, value: ir.Value, axis: int, name: str | None = None) -> Dim:
        """A free size that `value` has along `axis`."""
        name = name or f"{value.name}.{axis}"
        self.sources.setdefault(name, (value, axis))
        return Dim.symbol(name)

    def moved(self, old: ir.Value, new: ir.Value) -> None:
        """Notes that sizes read from `old` are read from `new` from now on."""
        for name, (value, axis) in self.sources.items():
            if value is old:
                self.sources[name] = (new, axis)

    def infer(self, node: ir.Node) -> None:
        """Sets sizes and contents of the node's outputs from those of its inputs."""
        rule = RULES.get((node.domain, node.op_type))
        results: list[Any] = []
        try:
            if rule is not None:
                results = [self._simplified(result) for result in rule(node)]
            if is_op(node, "Concat"):
                self._learn(node)
        except (UnknownSizeError, ArithmeticError, LookupError, TypeError, ValueError):
            results = []  # odd attributes or sizes: the runtime will say what is wrong
        for index, output in enumerate(node.outputs):
            result = results[index] if index < len(results) else None
            content = None
            if isinstance(result, np.ndarray):
                content, result = result, result.shape
            if result is None and output.shape is not None:
                result = self.declared(output)
            output.meta["dims"] = None if result is None else tuple(result)
            if content is not None and content.size <= MAX_CONTENT:
                output.meta["content"] = content
            elif "content" in output.meta:
                del output.meta["content"]
            if output.type is None and (dtype := _dtype(node)) is not None:
                output.type = ir.TensorType(dtype)

    def _learn(self, node: ir.Node) -> None:
        """Images that are joined have one height and one width, however they were computed."""
        first, *others = (dims_of(value) or () for value in node.inputs)
        axis = attribute(node, "axis", 0) % max(1, len(first))
        for dims in others:
            for index, (a, b) in enumerate(zip(first, dims, strict=False)):
                fact = fact_of(a, b) if index != axis and a != b else None
                if fact is not None and len(self._facts) < _MAX_FACTS:
                    self._facts.append(fact)

    def _simplified(self, result: Any) -> Any:
        """A rule's result with all facts applied to the sizes in it."""
        if not self._facts or result is None:
            return result
        if isinstance(result, np.ndarray):
            simplified: Any = np.frompyfunc(self._simplified_size, 1, 1)(result)
            return np.asarray(simplified, dtype=object)
        return tuple(map(self._simplified_size, result))

    def _simplified_size(self, size: Any) -> Any:
        if isinstance(size, Dim):
            for fact in self._facts:
                size = fact.applied(size)
        return size


_MAX_FACTS = 32
_RESULTS = {
    **dict.fromkeys(("Shape", "Size", "ArgMax", "NonZero"), ir.DataType.INT64),
    **dict.fromkeys(
        ("And", "Or", "Xor", "Not", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"),
        ir.DataType.BOOL,
    ),
}


def _dtype(node: ir.Node) -> ir.DataType | None:
    """Element type of the first output."""
    if node.op_type in _RESULTS:
        return _RESULTS[node.op_type]
    if node.op_type == "Cast":
        return ir.DataType(attribute(node, "to"))
    if node.op_type == "ConstantOfShape":
        tensor = attribute(node, "value")
        return ir.DataType.FLOAT if tensor is None else ir.DataType(tensor.dtype)
    source = input_of(node, 1 if node.op_type == "Where" else 0)
    return None if source is None else source.dtype
