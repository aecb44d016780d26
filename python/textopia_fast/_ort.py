"""Finds the ONNX Runtime library of the installed wheel and makes sessions with it.

The wheels `onnxruntime` and `onnxruntime-gpu` are both imported as `onnxruntime`. The library is
only located: importing that package would load a second, separate copy of it. Nothing is searched
when this module is imported.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from . import _core
from .checks import check_instance, check_integer
from .cuda_options import provider_options
from .errors import ConfigurationError

__all__ = ["create_session", "register", "runtime_info"]

MAX_THREADS = 1024


def find_libraries() -> list[str]:
    """Paths of `libonnxruntime.so.1*` in the installed wheel, best first; empty without one."""
    try:
        spec = importlib.util.find_spec("onnxruntime")
    except (ImportError, ValueError):  # a half-removed package, or a stand-in module without a spec
        return []
    if spec is None or spec.submodule_search_locations is None:
        return []
    found: list[str] = []
    for folder in spec.submodule_search_locations:
        found += sorted(str(path) for path in Path(folder, "capi").glob("libonnxruntime.so.1*"))
    return found


def register() -> None:
    """Tells the core where the library is. Cheap enough to be called before each session."""
    _core.set_ort_candidates(find_libraries())


def create_session(
    model: str | os.PathLike[str] | bytes,
    *,
    label: str = "",
    threads: int | None = None,
    optimization_level: int = 99,
    config: Mapping[str, str] | None = None,
    plugin: _core.Plugin | None = None,
    gpu: _core.Gpu | None = None,
    cuda_graphs: bool = False,
    is_compiled: bool = False,
    cuda_options: Mapping[str, str] | None = None,
    memory_pattern: bool = True,
    plans: _core.PlanSource | None = None,
) -> _core.Session:
    """Loads an ONNX graph.

    Args:
        model: A path (weights kept beside the graph are memory-mapped) or the bytes of a graph.
        label: Name in error messages, such as `unet/model.onnx`; the path where empty.
        threads: Threads per run, up to 1024; None (or 0) means one per usable CPU.
        optimization_level: 0 none, 1 basic, 2 extended, 3 layout, 99 all.
        config: ONNX Runtime's session config entries.
        plugin: The provider that runs the whole graph; None for ONNX Runtime's own.
        gpu: Where the graph runs, with ONNX Runtime's CUDA provider, on that GPU's stream; None
            for the CPU. A node that the provider cannot take is an error.
        cuda_graphs: Lets the loop replay its runs as CUDA graphs, on a GPU. A graph that cannot be
            captured is loaded without; `session.cuda_graphs` says why.
        is_compiled: The graph was written by our compiler, which changes what is best on a GPU.
        cuda_options: Replaces options of the CUDA provider (`cuda_options.py`), for measurements.
        memory_pattern: Whether ONNX Runtime lays out its memory for a shape at its first run, in a
            block beside that of the first: 50 us less for each run of a small graph, up to twice
            the memory of any.
        plans: How fused operators cut their work; None: computed. No result depends on it.

    Raises:
        ConfigurationError: No usable ONNX Runtime is installed, an option is impossible, or the
            plugin or the CUDA provider is not there.
        ModelNotFoundError: There is no such file.
        ModelFormatError: The graph cannot be read or is invalid.
        UnsupportedModelError: The graph needs an operator or version that is not there, or one
            that the plugin does not take.
        OutOfMemoryError: The graph does not fit into memory.
        ForkedProcessError: ONNX Runtime was opened before this process was forked.
    """
    threads = 0 if threads is None else threads  # 0 is what the core has for None
    check_integer("threads", threads, 0, MAX_THREADS, kind=ConfigurationError)
    register()
    options: dict[str, Any] = {
        "threads": threads,
        "optimization_level": optimization_level,
        "config": dict(config or {}),
        "plugin": plugin,
        "gpu": gpu,
        "cuda_graphs": cuda_graphs,
        "cuda_options": provider_options(is_compiled=is_compiled, changes=cuda_options),
        "memory_pattern": memory_pattern,
        "plans": plans,
    }
    check_instance("graph", model, (str, bytes, os.PathLike), "is a path or the bytes of a graph")
    if isinstance(model, bytes):
        return _core.Session.from_memory(model, label=label or "graph", **options)
    return _core.Session.from_file(model, label=label, **options)


def runtime_info() -> dict[str, Any]:
    """`path`, `version`, `api_version` and `providers` of the library in use; opens it.

    Raises:
        ConfigurationError: No usable ONNX Runtime is installed.
    """
    register()
    return _core.ort_info()
