"""How each operator's output measures: one function per kind of operator, used by `Shaper`."""

from __future__ import annotations

from . import computing, moving  # noqa: F401 - they enter their rules into the table
from .moving import target_of_reshape
from .table import RULES, UnknownSizeError

__all__ = ["RULES", "UnknownSizeError", "target_of_reshape"]
