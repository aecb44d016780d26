"""Our compiled network, of an engine that is in the cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.sd15.case import NetworkCase, graph_of
from benchmarks.timing import NotInstalledError

if TYPE_CHECKING:
    from textopia_fast.engines import GraphSource
    from textopia_fast.graph import EngineDirectory

NAME = "textopia_fast bf16"
TARGET = "cpu-bf16"


def make(case: NetworkCase) -> Callable[[], np.ndarray]:
    session = open_engine(case.directory, case.threads).open(case.PART)
    feeds, output = case.feeds(), session.outputs[0].name
    return lambda: session.run(feeds)[output]


def open_engine(directory: Path, threads: int, target: str = TARGET) -> GraphSource:
    from textopia_fast.engines import GraphSource

    # With an engine, the directory is asked for nothing but what a whole pipeline needs.
    return GraphSource(None, engine_of(directory, target=target), threads)


def prepare(directory: Path) -> EngineDirectory:
    """Compiles, before anything is timed: engines are measured warm."""
    from textopia_fast import _core

    if _core.active_matrix_unit() == "scalar":
        raise NotInstalledError("needs AMX or AVX512_BF16")
    return engine_of(directory)


def engine_of(
    directory: Path, cache_dir: Path | None = None, target: str = TARGET
) -> EngineDirectory:
    """The engine of a model, or of a U-Net alone: there is no pipeline for that of SDXL."""
    from textopia_fast.graph import compile_directory
    from textopia_fast.models import open_directory

    if (directory / "model_index.json").is_file():
        return compile_directory(open_directory(directory), target, cache_dir)
    return _engine_of_unet(graph_of(directory, "unet"), cache_dir)


def _engine_of_unet(graph: Path, cache_dir: Path | None) -> EngineDirectory:
    from textopia_fast import _core
    from textopia_fast.graph import EngineDirectory
    from textopia_fast.graph.cache import EngineCache, default_cache_dir
    from textopia_fast.graph.compile import compile_graph
    from textopia_fast.graph.engine import EnginePart, write_graphs
    from textopia_fast.graph.manifest import write_manifest
    from textopia_fast.graph.targets import COMPILER_VERSION, find_target

    side = json.loads((graph.parent / "config.json").read_text())["sample_size"]
    sizes = {"batch_size": 2, "height": side, "width": side, "sequence_length": 77}

    def build(folder: Path) -> None:
        compiled = compile_graph(graph, "unet", find_target(TARGET), sizes)
        (folder / "unet").mkdir()
        write_graphs(compiled, folder / "unet", "unet")
        share, split = compiled.coverage.share, dict(compiled.split)
        facts = {"graphs": list(compiled.graphs), "share": share, "split": split}
        name = graph.parent.parent.name
        write_manifest(folder, {"model": name, "target": TARGET, "parts": {"unet": facts}})

    cache = EngineCache(cache_dir or default_cache_dir())
    marks = [cache.fingerprint(graph.with_name(name)) for name in ("model.onnx", "model.onnx_data")]
    key = f"{''.join(mark[:10] for mark in marks)}-{TARGET}-{_core.__version__}-{COMPILER_VERSION}"
    path, facts = cache.obtain(key, build)
    unet = facts["parts"]["unet"]
    graphs = {name: path / "unet" / f"{name}.onnx" for name in unet["graphs"]}
    part = EnginePart(graphs, unet["share"], unet["split"])
    size = sum(entry["bytes"] for entry in facts["files"].values())
    return EngineDirectory(path, TARGET, {"unet": part}, size)
