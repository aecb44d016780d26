"""The options of a sampler function: which there are, and checks of what is given."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from ..checks import check_integer, check_number, check_numbers, refuse
from ..errors import InvalidRequestError
from ..schedules.levels import Schedule
from . import registry

__all__ = ["bind_options", "is_own", "takes"]


def is_own(function: Callable[..., Any]) -> bool:
    """Whether it is a sampler of this package."""
    own = (*registry.SAMPLERS.values(), *registry.STEP_BY_STEP.values())
    return any(function is info.function for info in own)


def takes(function: Callable[..., Any], option: str) -> bool:
    """Whether a sampler function has a parameter of that name."""
    try:
        return option in inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def bind_options(
    name: str, function: Callable[..., Any], schedule: Schedule, options: dict[str, Any]
) -> dict[str, Any]:
    """The options that `function` is called with.

    Raises:
        InvalidRequestError: It does not take (m, x, sigmas), an option is not known or missing, or
            an option of a sampler of this package is of the wrong kind.
    """
    try:
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())
        signature.bind_partial(None, None, None)
    except (TypeError, ValueError):
        refuse("sampler", function, "are functions (m, x, sigmas, **options)")
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    known = {
        p.name: p for p in parameters[3:] if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    names = ", ".join(known) or "none"
    for option, value in options.items():
        if option in known:
            _check_option(function, known[option], value)
        elif not takes_any:
            raise InvalidRequestError(
                f"{name}: option {option!r} is not known, allowed are {names}.", param=option
            )
    for facts in ("targets", "timesteps"):
        values = getattr(schedule, facts)
        if values is not None and facts in known and facts not in options:
            options = {**options, facts: values}
    missing = [p.name for p in known.values() if p.default is p.empty and p.name not in options]
    if missing:
        raise InvalidRequestError(
            f"{name}: option {missing[0]!r} is not given and has no default.", param=missing[0]
        )
    return options


def _check_option(function: Callable[..., Any], parameter: inspect.Parameter, value: Any) -> None:
    """Checks an option against its annotation, for the samplers of this package."""
    if not is_own(function):
        return
    name, kind = parameter.name, parameter.annotation
    if value is None and "None" in kind:
        return
    if kind == "int":
        check_integer(name, value, 0, 1_000_000)
    elif kind == "bool":
        if not isinstance(value, bool):
            refuse(name, value, "are True, False")
    elif kind.startswith("float"):
        # s_tmax is infinite unless given, and may be given so.
        if not (isinstance(value, float) and value == parameter.default):
            check_number(name, value)
    elif kind.startswith("Sequence[float]"):
        check_numbers(name, value)
