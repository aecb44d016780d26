"""Checks of what a caller gives: the value comes back as plain data, or a typed error says why not.

Messages are those of the whole package: "where: what was found, what is allowed".
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

from .errors import InvalidRequestError, TextopiaError

__all__ = [
    "check_choice",
    "check_instance",
    "check_integer",
    "check_mapping",
    "check_number",
    "check_numbers",
    "check_share",
    "refuse",
    "shown",
]

# More than any list that means something: an iterator without end stops here.
MOST_NUMBERS = 2_000_000


def shown(value: Any, limit: int = 80) -> str:
    """`repr` of any value for a message, cut short: no line breaks, no control characters."""
    if isinstance(value, Path):
        value = str(value)
    try:
        text = ascii(value) if isinstance(value, bytes) else repr(value)
        if not text.isprintable():
            text = " ".join(ascii(value).split())
    except Exception:  # a repr of the caller's own, or an integer of too many digits
        text = f"<{type(value).__name__}>"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def refuse(
    name: str,
    value: Any,
    allowed: str,
    *,
    kind: type[TextopiaError] = InvalidRequestError,
    **details: Any,
) -> NoReturn:
    """Raises an error of `kind`: "name: got value, allowed are ...".

    `name` may say where before the parameter, as in "m.denoise: sigma"; `allowed` reads on from
    the word "allowed".
    """
    param = name.rpartition(": ")[2]
    raise kind(f"{name}: got {shown(value)}, allowed {allowed}.", param=param, **details)


def check_integer(
    name: str,
    value: Any,
    low: int,
    high: int,
    *,
    kind: type[TextopiaError] = InvalidRequestError,
) -> int:
    """An integer in low..high; booleans and floats are none."""
    if (
        isinstance(value, bool)
        or not hasattr(value, "__index__")
        or getattr(value, "ndim", None)  # arrays of one element have an __index__, too
        or not low <= int(value) <= high
    ):
        refuse(name, value, f"are integers {low}..{high}", kind=kind, limit=high)
    return int(value)


def check_number(name: str, value: Any) -> float:
    """A finite real number; booleans are none."""
    if type(value) is float and math.isfinite(value):  # by far the most frequent
        return value
    if not isinstance(value, bool) and isinstance(value, numbers.Real):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    refuse(name, value, "are finite numbers")


def check_share(name: str, value: Any) -> float:
    """A number in 0..1."""
    number = check_number(name, value)
    if not 0.0 <= number <= 1.0:
        refuse(name, value, "are numbers 0..1")
    return number


def check_numbers(name: str, values: Any, allowed: str = "are finite numbers") -> tuple[float, ...]:
    """Finite numbers out of any iterable, arrays and tensors of rank 1 too; may be none."""
    try:
        found = None
        if not isinstance(values, str):
            found = tuple(float(value) for value in islice(values, MOST_NUMBERS + 1))
    except (TypeError, ValueError, OverflowError):
        found = None
    if found is not None and len(found) > MOST_NUMBERS:
        refuse(name, values, f"{allowed}, at most {MOST_NUMBERS:,}")
    if found is None or not all(map(math.isfinite, found)):
        refuse(name, values, allowed)
    return found


def check_choice(name: str, value: Any, allowed: Iterable[str]) -> str:
    """`value` when it is one of the strings `allowed`."""
    allowed = tuple(allowed)
    if not isinstance(value, str) or value not in allowed:
        refuse(name, value, f"are {', '.join(allowed)}")
    return value


def check_instance(name: str, value: Any, kind: type | Sequence[type], allowed: str) -> None:
    """Refuses what is not of `kind`; `allowed` reads on from "allowed "."""
    if not isinstance(value, kind if isinstance(kind, type) else tuple(kind)):
        refuse(name, value, allowed)


def check_mapping(name: str, value: Any, allowed: str) -> dict[str, Any]:
    """A mapping from strings, as a dict of its own; None counts as an empty one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        refuse(name, value, allowed)
    return dict(value)
