"""Where in the caller's own code an error arose."""

from __future__ import annotations

import linecache
import os
import traceback

from ..errors import TextopiaError

__all__ = ["add_line"]

# Frames that are not the caller's: this package, and what may stand between it and the caller.
_FOREIGN = (__name__.partition(".")[0], "numpy", "torch")


def add_line(error: TextopiaError) -> None:
    """Adds to an error that is being handled the innermost line outside this package.

    The message then ends "in FUNCTION, line N of FILE: `SOURCE`."; `details` gets "file" and
    "line".
    """
    found = None
    for frame, number in traceback.walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__", "").partition(".")[0] not in _FOREIGN:
            found = frame, number
    if found is None:
        return
    frame, number = found
    file = frame.f_code.co_filename
    source = linecache.getline(file, number, frame.f_globals).strip()
    place = f"in {frame.f_code.co_name}, line {number} of {os.path.basename(file)}"
    quoted = f": `{source}`" if source else ""
    error.message = f"{error.message.rstrip('.')}; {place}{quoted}."
    error.args = (error.message,)
    error.details.update(file=file, line=number)
