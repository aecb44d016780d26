"""Which graphs a pipeline opens: those of its directory, or an engine compiled from them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import _core
from ._ort import create_session
from .checks import check_choice
from .errors import OutputError, TextopiaWarning, UnsupportedModelError
from .graph import EngineDirectory, compile_directory
from .models import ModelDirectory
from .precision import Choice

__all__ = ["VERIFY", "find_engine", "open_compiled"]

VERIFY = ("size", "full")
_TARGET = "cpu-bf16"
# Weights are packed when they are compiled; ONNX Runtime's own packing would only copy the others.
_CONFIG = {"session.disable_prepacking": "1"}


def find_engine(
    directory: ModelDirectory,
    choice: Choice,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    verify: str = "size",
    progress: Callable[[str, int, int], Any] | None = None,
) -> EngineDirectory | None:
    """The engine of a directory for the chosen precision; None where graphs run as exported.

    A precision that nobody asked for is given up, with a TextopiaWarning, where there can be no
    engine.

    Raises:
        OutputError: The cache cannot be written: read-only, full.
        UnsupportedModelError: The graphs cannot be compiled.
        ConfigurationError: `verify` is no such check.
    """
    check_choice("verify", verify, VERIFY)
    if choice.precision == "fp32":
        return None
    try:
        return compile_directory(directory, _TARGET, cache_dir, progress, verify=verify)
    except (OutputError, UnsupportedModelError) as error:
        if not choice.is_automatic:
            raise
        warnings.warn(
            f"precision: fp32 instead of {choice.precision}. {error.message}",
            TextopiaWarning,
            stacklevel=3,
        )
        return None


def open_compiled(graph: Path, *, label: str, threads: int | None) -> _core.Session:
    """Opens a graph of an engine; its weights stay in the mapped file, shared by processes."""
    return create_session(graph, threads=threads, label=label, config=_CONFIG)
