"""How the program ends: one exit code and one line on stderr for every kind of error."""

from __future__ import annotations

import sys
import traceback
import warnings
from typing import Any

from ..errors import (
    ConfigurationError,
    EngineStateError,
    ExecutionError,
    GenerationCancelled,
    InvalidRequestError,
    ModelError,
    OutputError,
    TextopiaError,
    TextopiaWarning,
)

OK = 0
USAGE = 2
MODEL = 3
DEVICE = 4
OUTPUT = 5
INTERNAL = 70
INTERRUPTED = 130

_BY_CLASS: tuple[tuple[type[BaseException], int], ...] = (
    (InvalidRequestError, USAGE),
    (ModelError, MODEL),
    (ExecutionError, DEVICE),
    (MemoryError, DEVICE),
    (TimeoutError, DEVICE),
    (OutputError, OUTPUT),
    (GenerationCancelled, INTERRUPTED),
    (KeyboardInterrupt, INTERRUPTED),
    (EngineStateError, INTERNAL),
)


def exit_code(error: BaseException) -> int:
    """The exit code for an error."""
    if isinstance(error, ConfigurationError):
        # An option that cannot be, or an installation that lacks something.
        return USAGE if "param" in error.details else MODEL
    return next((code for kind, code in _BY_CLASS if isinstance(error, kind)), INTERNAL)


def report(error: BaseException, debug: bool) -> int:
    """Prints an error as one line, after its traceback when debugging; returns the exit code."""
    if debug:
        traceback.print_exception(error)
    if isinstance(error, TextopiaError):
        code, text = error.code, str(error)
    elif isinstance(error, KeyboardInterrupt):
        code, text = "interrupted", "stopped by the keyboard."
    elif isinstance(error, MemoryError):
        code, text = "out_of_memory", "memory ran out."
    else:
        code = "internal"
        text = f"{type(error).__name__}: {error} (--debug shows where)"
    say(f"error[{code}]: {text}")
    return exit_code(error)


def say(line: str) -> None:
    """Writes one line to stderr; line breaks and control characters are escaped."""
    print("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line), file=sys.stderr)


class SpokenWarnings(warnings.catch_warnings):
    """Inside of this, a `TextopiaWarning` is one line on stderr."""

    def __enter__(self) -> Any:
        entered = super().__enter__()
        warnings.simplefilter("always", TextopiaWarning)
        shown_before = warnings.showwarning

        def show(message: Any, category: Any, *place: Any, **more: Any) -> None:
            if isinstance(message, TextopiaWarning):
                say(f"warning: {message}")
            else:
                shown_before(message, category, *place, **more)

        warnings.showwarning = show
        return entered
