"""Looking at a graph and changing it: small helpers over onnx-ir, shared by all passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

import numpy as np
import onnx_ir as ir

from ..errors import InternalError
from .dims import Dims

if TYPE_CHECKING:
    from .shapes import Shaper

__all__ = [
    "DOMAIN",
    "MAX_CONTENT",
    "Editor",
    "attribute",
    "constant",
    "content_of",
    "dims_of",
    "input_of",
    "is_op",
    "only_user",
    "present",
    "producer",
    "scalar",
    "small_array",
    "stored_sizes",
    "users",
]

DOMAIN = "ai.textopia"
_MAX_SMALL = 1 << 22
MAX_CONTENT = 64
T = TypeVar("T")
_INTEGERS = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)


def present(value: T | None) -> T:
    """What a pass knows to be there. Raises InternalError: a bug of the pass."""
    if value is None:
        raise InternalError("graph: a value that a pass counted on is not there")
    return value


def is_op(node: ir.Node | None, *op_types: str, domain: str = "") -> TypeGuard[ir.Node]:
    """Whether `node` is one of these operators of `domain`."""
    return node is not None and node.domain == domain and node.op_type in op_types


def attribute(node: ir.Node, name: str, default: Any = None) -> Any:
    """Value of an attribute, or `default`."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def input_of(node: ir.Node, index: int) -> ir.Value | None:
    """Input number `index`, None when it is absent or left empty."""
    return node.inputs[index] if index < len(node.inputs) else None


def producer(value: ir.Value | None, *op_types: str, domain: str = "") -> ir.Node | None:
    """The node that makes `value`, when it is one of `op_types`."""
    node = None if value is None else value.producer()
    return node if is_op(node, *op_types, domain=domain) else None


def users(value: ir.Value) -> list[ir.Node]:
    """The nodes that read `value`, each once."""
    return list(dict.fromkeys(use.node for use in value.uses()))


def only_user(value: ir.Value, *op_types: str, domain: str = "") -> ir.Node | None:
    """The single node that reads `value`, when it is one of `op_types`; None for an output."""
    if value.is_graph_output():
        return None
    found = users(value)
    return found[0] if len(found) == 1 and is_op(found[0], *op_types, domain=domain) else None


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The stored tensor behind `value`, not loaded yet; None when it is computed."""
    return None if value is None or not value.is_initializer() else value.const_value


def stored_sizes(tensor: ir.TensorProtocol) -> tuple[int, ...]:
    """Sizes of a stored tensor, which are all numbers."""
    return tuple(int(str(size)) for size in tensor.shape)


def small_array(value: ir.Value | None) -> np.ndarray | None:
    """The contents of a stored tensor of moderate size."""
    tensor = constant(value)
    return None if tensor is None or tensor.size > _MAX_SMALL else tensor.numpy()


def scalar(value: ir.Value | None) -> float | None:
    """The number in a stored tensor of one element."""
    tensor = constant(value)
    if tensor is None or tensor.size != 1 or tensor.dtype == ir.DataType.STRING:
        return None
    if len(tensor.shape) > 1:  # more axes than the other operand may have
        return None
    return float(tensor.numpy().reshape(()))


def dims_of(value: ir.Value | None) -> Dims | None:
    """The sizes of `value` as shape inference found them; None when its rank is unknown."""
    return None if value is None else value.meta.get("dims")


def content_of(value: ir.Value | None) -> np.ndarray | None:
    """The numbers in an integer tensor of at most 64 elements, where they are known as sizes."""
    if value is None:
        return None
    found: np.ndarray | None = value.meta.get("content")
    tensor = constant(value)
    if found is not None or tensor is None:
        return found
    if tensor.dtype in _INTEGERS and tensor.size <= MAX_CONTENT:
        found = tensor.numpy().astype(object)
        value.meta["content"] = found
    return found


class Editor:
    """Changes one graph. New nodes know their shapes at once; replaced ones are left unused.

    Args:
        graph: The graph to change.
        shaper: Told of each new node.
    """

    def __init__(self, graph: ir.Graph, shaper: Shaper) -> None:
        self.graph = graph
        self.shaper = shaper

    def name(self, stem: str) -> str:
        """A name that no other value of the graph has."""
        return f"tx/{stem}_{next(self.shaper.numbers)}"

    def add(
        self,
        before: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        domain: str = "",
        outputs: int = 1,
    ) -> ir.Node:
        """Inserts a node in front of `before`."""
        node = self.make(op_type, inputs, attributes, domain, outputs)
        self.graph.insert_before(before, node)
        return node

    def make(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
        domain: str = "",
        outputs: int = 1,
    ) -> ir.Node:
        """A node that stands nowhere yet."""
        while inputs and inputs[-1] is None:
            inputs = inputs[:-1]
        node = ir.node(op_type, inputs, attributes=attributes, domain=domain, num_outputs=outputs)
        for output in node.outputs:
            output.name = self.name(op_type)
        node.name = node.outputs[0].name
        self.shaper.infer(node)
        return node

    def op(self, before: ir.Node, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> Any:
        """Inserts a standard operator with one output; gives that output."""
        return self.add(before, op_type, inputs, attributes).outputs[0]

    def fused(
        self, before: ir.Node, op_type: str, *inputs: ir.Value | None, **attributes: Any
    ) -> Any:
        """Inserts an operator of our domain; gives its output."""
        return self.add(before, op_type, inputs, attributes, DOMAIN).outputs[0]

    def store(self, array: np.ndarray | ir.TensorProtocol, stem: str = "constant") -> ir.Value:
        """Adds a stored tensor."""
        name = self.name(stem)
        tensor = array if isinstance(array, ir.TensorProtocol) else ir.tensor(array, name=name)
        value = ir.Value(
            name=name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(stored_sizes(tensor)),
            const_value=tensor,
        )
        value.meta["dims"] = stored_sizes(tensor)
        self.graph.register_initializer(value)
        return value

    def replace(self, old: ir.Value, new: ir.Value) -> None:
        """Lets everything that reads `old` read `new`, and an output keep its name."""
        self.shaper.moved(old, new)
        for use in tuple(old.uses()):
            if use.node is not new.producer() or new is old:
                use.node.replace_input_with(use.idx, new)
        if not old.is_graph_output():
            return
        if new.producer() is None or new.is_graph_output():
            new = self.op(present(old.producer()), "Identity", new)
        name, old.name = old.name, self.name("replaced")
        new.name = name
        outputs = self.graph.outputs
        for index, output in enumerate(outputs):
            if output is old:
                new.shape, new.type = new.shape or old.shape, new.type or old.type
                outputs[index] = new

    def prune(self) -> None:
        """Removes nodes and stored tensors that nothing reads."""
        for node in reversed(self.graph):
            if all(not out.uses() and not out.is_graph_output() for out in node.outputs):
                self.graph.remove(node, safe=True)
        for name, value in tuple(self.graph.initializers.items()):
            if not value.uses() and not value.is_graph_output():
                del self.graph.initializers[name]
