"""Symbols: linear expressions over values that do not exist yet.

A sampler that runs on symbols instead of arrays leaves behind what it would have computed. Only
linear operations have a meaning here; anything else raises InvalidRequestError and names the
operation.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any, NoReturn

from ..errors import InvalidRequestError

__all__ = ["CANCELLED", "Linear"]

# A sum this much smaller than its parts is rounding noise of an exact cancellation (2^-50, four
# ulp).
CANCELLED = 2.0**-50

_HINT = "Samplers may only add latents and multiply or divide them by numbers."


class Linear:
    """A weighted sum of values, {value: weight}; values are numbers that a tracer gave out."""

    __slots__ = ("base", "scale", "tracer", "weights")

    def __init__(
        self, tracer: Any, weights: dict[int, float], base: Linear | None = None, scale: float = 1.0
    ) -> None:
        self.tracer = tracer
        self.weights = weights
        # self == scale * base: lets the tracer store the base and fold the scale elsewhere.
        self.base = self if base is None else base
        self.scale = scale

    def __add__(self, other: Any) -> Linear:
        return self._plus(other, 1.0, "+")

    def __radd__(self, other: Any) -> Linear:
        return self._plus(other, 1.0, "+")

    def __sub__(self, other: Any) -> Linear:
        return self._plus(other, -1.0, "-")

    def __rsub__(self, other: Any) -> Linear:
        return (-self)._plus(other, 1.0, "-")

    def __mul__(self, factor: Any) -> Linear:
        if isinstance(factor, Linear):
            _refuse(f"({self!r}) * ({factor!r}) is a product of two latents")
        return self._times(_number(factor, self, "*"), "*", factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor: Any) -> Linear:
        if isinstance(divisor, Linear):
            _refuse(f"({self!r}) / ({divisor!r}) is a quotient of two latents")
        value = _number(divisor, self, "/")
        if value == 0.0:
            _refuse(f"({self!r}) / {divisor!r} is a division by zero", hint=None)
        return self._times(1.0 / value, "/", divisor)

    def __neg__(self) -> Linear:
        return self._times(-1.0, "*", -1)

    def __pos__(self) -> Linear:
        return self

    def _times(self, factor: float, operator: str, given: Any) -> Linear:
        if factor == 1.0:
            return self
        weights = {value: weight * factor for value, weight in self.weights.items()}
        if not isfinite(sum(weights.values())):
            _refuse(f"({self!r}) {operator} {given!r} gives a weight that is not finite", hint=None)
        self.tracer.spend(len(weights))
        if factor == 0.0:
            return Linear(self.tracer, {})
        return Linear(self.tracer, weights, self.base, self.scale * factor)

    def _plus(self, other: Any, sign: float, operator: str) -> Linear:
        if not isinstance(other, Linear):
            if _number(other, self, operator) == 0.0:  # sum() starts at 0
                return self
            _refuse(f"({self!r}) {operator} {other!r} adds a constant to a latent")
        if other.tracer is not self.tracer:
            _refuse("an expression of another trace is used in this one")
        weights = dict(self.weights)
        for value, weight in other.weights.items():
            term = sign * weight
            old = weights.get(value)
            if old is None:
                weights[value] = term
                continue
            total = old + term
            if abs(total) <= CANCELLED * abs(old):
                del weights[value]
            else:
                weights[value] = total
        self.tracer.spend(len(weights))
        return Linear(self.tracer, weights)

    def __repr__(self) -> str:
        if not self.weights:
            return "0"
        names = self.tracer.value_name
        return " ".join(f"{weight:+.6g}*{names(value)}" for value, weight in self.weights.items())

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Linear:
        # NumPy scalars come through here when they stand on the left: np.float64(2) * x.
        operators: dict[str, Callable[[Any, Linear], Linear]] = {
            "add": lambda a, b: b + a,
            "subtract": lambda a, b: (-b)._plus(a, 1.0, "-"),
            "multiply": lambda a, b: b * a,
        }
        plain = method == "__call__" and not kwargs and len(inputs) == 2
        if plain and ufunc.__name__ in operators and not isinstance(inputs[0], Linear):
            return operators[ufunc.__name__](*inputs)
        _refuse(f"numpy.{ufunc.__name__} is applied to ({self!r})")

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        # The same for tensors: torch.tensor(2.0) * x.
        name = func.__name__.strip("_")
        if len(args) == 2 and not kwargs and isinstance(args[1], Linear):
            number, x = args
            if name in ("mul", "multiply", "rmul") and not isinstance(number, Linear):
                return x * number
            if name in ("add", "radd", "sub", "subtract") and not isinstance(number, Linear):
                return (x if "add" in name else -x) + number
        latents = [f"({x!r})" for x in args if isinstance(x, Linear)]
        _refuse(f"torch.{name} is applied to {', '.join(latents) or 'a latent'}")

    def __array_function__(self, func: Any, *_: Any, **__: Any) -> NoReturn:
        _refuse(f"numpy.{func.__name__} is applied to ({self!r})")

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        _refuse(f"({self!r}) is turned into an array")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        _refuse(f"attribute .{name} of ({self!r}) is used")

    def __bool__(self) -> NoReturn:
        _refuse(f"({self!r}) is used as a condition")

    def __float__(self) -> NoReturn:
        _refuse(f"({self!r}) is turned into a number")

    __int__ = __complex__ = __index__ = __float__

    def __abs__(self) -> NoReturn:
        _refuse(f"abs({self!r}) is taken")

    def __iter__(self) -> NoReturn:
        _refuse(f"({self!r}) is iterated over")

    def __len__(self) -> NoReturn:
        _refuse(f"len({self!r}) is taken")

    def __getitem__(self, key: Any) -> NoReturn:
        _refuse(f"({self!r})[{key!r}] is taken")

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        _refuse(f"({self!r})[{key!r}] is set")

    def __round__(self, digits: Any = None) -> NoReturn:
        _refuse(f"round({self!r}) is taken")

    def __invert__(self) -> NoReturn:
        _refuse(f"~({self!r}) is taken")

    __hash__ = object.__hash__


def _refuser(operator: str) -> Any:
    def refuse(self: Linear, other: Any) -> NoReturn:
        _refuse(f"({self!r}) {operator} ({other!r}) is not linear")

    return refuse


for _name, _operator in [
    *(("lt", "<"), ("le", "<="), ("gt", ">"), ("ge", ">="), ("eq", "=="), ("ne", "!=")),
    *(("pow", "**"), ("rpow", "**"), ("mod", "%"), ("rmod", "%"), ("matmul", "@")),
    *(("rmatmul", "@"), ("floordiv", "//"), ("rfloordiv", "//"), ("rtruediv", "/")),
    *(("and", "&"), ("rand", "&"), ("or", "|"), ("ror", "|"), ("xor", "^"), ("rxor", "^")),
    *(("divmod", "divmod"), ("rdivmod", "divmod"), ("lshift", "<<"), ("rshift", ">>")),
]:
    setattr(Linear, f"__{_name}__", _refuser(_operator))


def _number(value: Any, latent: Linear, operator: str) -> float:
    if type(value) is float and isfinite(value):  # by far the most frequent
        return value
    try:
        number = float(value) if not isinstance(value, (str, bytes)) else None
    except (TypeError, ValueError):
        number = None
    if number is None:
        _refuse(f"({latent!r}) {operator} {value!r} needs a single number")
    if not isfinite(number):
        _refuse(f"({latent!r}) {operator} {value!r} gives a weight that is not finite", hint=None)
    return number


def _refuse(what: str, hint: str | None = _HINT) -> NoReturn:
    raise InvalidRequestError(
        f"trace: {what}, which a program cannot hold.", hint=hint, param="sampler"
    )
