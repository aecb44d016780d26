"""What a trace writes down: values, operations, and how much of both there may be."""

from __future__ import annotations

from typing import Any, NoReturn

from ..errors import InvalidRequestError
from .lowering import Node
from .program import Combine
from .symbols import Linear

__all__ = ["MAX_INSTRUCTIONS", "MAX_WEIGHTS", "Recording"]

MAX_INSTRUCTIONS = 400_000
MAX_WEIGHTS = 5_000_000


class Recording:
    """Values and operations of one trace, in order.

    Attributes:
        nodes: The operations.
        kinds: Of each value: "x", "e", "u" or "n" as in `lowering`; value 0 is the initial latent.
        halves: "u" value -> the "e" value that it is a half of.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.kinds: list[str] = ["x"]
        self.halves: dict[int, int] = {}
        self._weights_left = MAX_WEIGHTS

    def value_name(self, value: int) -> str:
        """Name of a value for messages: x0 is the initial latent; counted per kind."""
        kind = self.kinds[value]
        return f"{kind}{self.kinds[:value].count(kind)}"

    def spend(self, weights: int) -> None:
        """Counts weights that an expression writes, against MAX_WEIGHTS."""
        self._weights_left -= weights + 1
        if self._weights_left < 0:
            _endless(MAX_WEIGHTS, "weights")

    def _record(self, node: Node) -> None:
        if len(self.nodes) >= MAX_INSTRUCTIONS:
            _endless(MAX_INSTRUCTIONS, "instructions")
        self.nodes.append(node)

    def _value(self, kind: str) -> int:
        self.spend(0)
        self.kinds.append(kind)
        return len(self.kinds) - 1

    def _stored(self, x: Linear) -> int:
        """The value that holds x, made by one COMBINE unless there is one."""
        if self._is_stored(x):
            (value,) = x.weights
            return value
        made = self._value("x")
        self._record(Node(Combine, made, x.weights or {0: 0.0}, ()))
        # From now on the expression is that value; what was built from it before keeps its old
        # form.
        x.weights, x.base, x.scale = {made: 1.0}, x, 1.0
        return made

    def _scaled(self, x: Linear) -> tuple[int, float]:
        """x as one latent times a number, made by one COMBINE unless there is one."""
        base = x.base
        if not self._is_stored(base) and len(x.weights) == 1:
            ((value, weight),) = x.weights.items()
            if self.kinds[value] == "x":
                return value, weight
        scale = x.scale
        source = self._stored(base)
        x.weights = {source: scale}
        return source, scale

    def _is_stored(self, x: Linear) -> bool:
        if len(x.weights) != 1:
            return False
        ((value, weight),) = x.weights.items()
        return weight == 1.0 and self.kinds[value] == "x"

    def _is_own(self, x: Any) -> bool:
        return isinstance(x, Linear) and x.tracer is self

    def _expect(self, where: str, x: Any) -> None:
        if not self._is_own(x):
            raise InvalidRequestError(
                f"m.{where}: {type(x).__name__} was passed, allowed is a latent of this trace.",
                param="sampler",
            )


def _endless(limit: int, what: str) -> NoReturn:
    raise InvalidRequestError(
        f"trace: the sampler writes more than {limit:,} {what}, allowed are {limit:,}.",
        hint="Does its loop end?",
        param="sampler",
        limit=limit,
    )
