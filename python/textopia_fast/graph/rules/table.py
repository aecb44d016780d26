"""The table of shape rules, and how a rule reads its node.

A rule gives a list with one entry per output: the sizes, an array of contents (which has its own
shape), or None. It raises UnknownSizeError where an input's rank or a needed number is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import onnx_ir as ir

from ..dims import Dim, Dims, Size
from ..edit import attribute, content_of, dims_of, input_of

__all__ = [
    "RULES",
    "UnknownSizeError",
    "axis_in",
    "broadcast",
    "content_in",
    "dims_in",
    "is_free",
    "numbers_in",
    "product",
    "rule",
    "sizes_in",
]


class UnknownSizeError(Exception):
    """The sizes cannot be told."""


Rule = Callable[[ir.Node], list[Any]]
RULES: dict[tuple[str, str], Rule] = {}


def rule(*op_types: str, domain: str = "") -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        for op_type in op_types:
            RULES[domain, op_type] = function
        return function

    return register


def dims_in(node: ir.Node, index: int = 0) -> Dims:
    dims = dims_of(input_of(node, index))
    if dims is None:
        raise UnknownSizeError
    return dims


def content_in(node: ir.Node, index: int = 0) -> np.ndarray:
    content = content_of(input_of(node, index))
    if content is None:
        raise UnknownSizeError
    return content


def numbers_in(node: ir.Node, index: int, name: str) -> list[int] | None:
    """Integers given as the attribute `name` (older operator sets) or as an input."""
    if name in node.attributes:
        value = attribute(node, name)
        return [int(value)] if isinstance(value, int) else [int(n) for n in value]
    if input_of(node, index) is None:
        return None
    content = content_in(node, index).reshape(-1)
    if any(isinstance(n, Dim) for n in content):
        raise UnknownSizeError
    return [int(n) for n in content]


def axis_in(axis: int, rank: int) -> int:
    """An axis counted from the front; one that is not there makes the sizes unknown."""
    if not -rank <= axis < rank:
        raise UnknownSizeError
    return axis % rank


def product(sizes: Iterable[Size]) -> Size:
    result: Size = 1
    for size in sizes:
        result = result * size
    return result


def broadcast(*shapes: Dims) -> Dims:
    """Sizes of an elementwise result.

    Two different free sizes may be equal, or one of them 1, when the graph runs: that gives a free
    size of its own, which cannot be computed in advance.
    """
    rank = max(map(len, shapes))
    result: list[Size] = []
    for sizes in zip(*((1,) * (rank - len(dims)) + dims for dims in shapes), strict=True):
        several = dict.fromkeys(size for size in sizes if size != 1)
        numbers = [size for size in several if isinstance(size, int)]
        if numbers:
            result.append(numbers[0])  # a free size must equal it, or be 1
        elif len(several) > 1:
            result.append(Dim.symbol(" or ".join(sorted(map(str, several)))))
        else:
            result.append(next(iter(several), 1))
    return tuple(result)


def sizes_in(node: ir.Node, index: int, name: str) -> list[Size]:
    if name in node.attributes:
        return [int(n) for n in attribute(node, name)]
    return [n if isinstance(n, Dim) else int(n) for n in content_in(node, index).reshape(-1)]


def is_free(*lists: list[Size]) -> bool:
    return any(isinstance(n, Dim) for numbers in lists for n in numbers)
