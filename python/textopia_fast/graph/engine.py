"""Engines: the compiled graphs of a model directory, on disk."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from .. import _core
from ..checks import refuse
from ..errors import ConfigurationError
from ..models import ModelDirectory, Part
from .cache import EngineCache, default_cache_dir
from .manifest import write_manifest
from .targets import COMPILER_VERSION, Target, find_target

if TYPE_CHECKING:
    from .compile import Compiled
    from .coverage import Coverage
    from .quantising import Int8Plan

__all__ = [
    "EngineDirectory",
    "EnginePart",
    "compile_directory",
    "measure_coverage",
    "measure_int8",
    "write_graphs",
]

Progress = Callable[[str, int, int], Any]
_WEIGHTS_IN_FLIGHT = 256 << 20
_PAGE = 4096


@dataclass(frozen=True)
class EnginePart:
    """One network of an engine.

    Attributes:
        graphs: Paths by name: "model", or "body", "time", "prompt" of a U-Net. Weights lie beside
            each graph in one file, each weight at a multiple of 4,096 bytes. `split.py` says what
            the graphs of a U-Net take and give.
        share: The part of its arithmetic that is in fused operators, 0 to 1.
        split: Nodes in "time", "prompt", "prefix" and "body" of a U-Net. With a prefix the body
            takes `sample` once per image, without one it takes a row for each prompt.
        int8: Of a U-Net with a graph "body_int8": "layers" in int8, "share" of the arithmetic of
            all layers, and how many were "kept" in bfloat16, by reason.
    """

    graphs: Mapping[str, Path]
    share: float
    split: Mapping[str, int]
    int8: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class EngineDirectory:
    """The compiled graphs of a model, complete and checked.

    Attributes:
        path: The folder; for "cpu-int8" the one of its own body, whose other graphs are those of
            the engine for "cpu-bf16".
        target: Name of what it was compiled for.
        parts: The networks by name.
        bytes: Size of all files.
    """

    path: Path
    target: str
    parts: Mapping[str, EnginePart]
    bytes: int


def compile_directory(
    directory: ModelDirectory,
    target: str,
    cache_dir: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    verify: str = "size",
    tune: bool = False,
) -> EngineDirectory:
    """The engine of a model: from the cache, else compiled and put there.

    Args:
        directory: What `open_directory` gives: the graphs have been checked.
        target: "cpu-bf16", "cpu-int8", "cpu-fp32", "cuda-fp16" or "cuda-bf16".
        cache_dir: Where engines are kept; None for the user's cache directory.
        progress: `progress(part, done, total)` as the weights of each graph are written.
        verify: "size" or "full": what of a kept engine is compared with its checksums.
        tune: Whether to measure how work is best cut here, with `tuning.tune_engine` and what it
            takes for granted; takes up to 90 seconds.

    Raises:
        ConfigurationError: No such target, or one that cannot be tuned.
        UnsupportedModelError: A graph of an operator set that is not compiled.
        OutputError: The cache cannot be written.
    """
    wanted = find_target(target)
    if tune and (wanted.weight_format != "bf16_panels" or wanted.beside is not None):
        refuse("tune", tune, f"is False for {target}", kind=ConfigurationError)
    base: EngineDirectory | None = None
    if wanted.beside is not None:
        base = compile_directory(directory, wanted.beside, cache_dir, progress, verify)
    cache = EngineCache(default_cache_dir() if cache_dir is None else Path(cache_dir))
    key = _key(directory, wanted, cache)

    def build(folder: Path) -> None:
        _build(folder, directory, wanted, progress)

    path, facts = cache.obtain(key, build, verify)
    parts = {
        name: EnginePart(
            MappingProxyType({graph: path / name / f"{graph}.onnx" for graph in part["graphs"]}),
            part["share"],
            MappingProxyType(part["split"]),
            part.get("int8"),
        )
        for name, part in facts["parts"].items()
    }
    size = sum(entry["bytes"] for entry in facts["files"].values())
    if base is not None:
        whole = base.parts["unet"]
        graphs = {**whole.graphs, "body_int8": parts["unet"].graphs["body"]}
        unet = replace(whole, graphs=MappingProxyType(graphs), int8=parts["unet"].int8)
        parts, size = {**base.parts, "unet": unet}, size + base.bytes
    engine = EngineDirectory(path, wanted.name, MappingProxyType(parts), size)
    if tune:
        from .tuning import tune_engine

        tune_engine(engine, directory, progress=progress)
    return engine


def measure_coverage(directory: ModelDirectory, part: Part, target: str = "reference") -> Coverage:
    """What of a network's arithmetic fused operators take, at the model's own size.

    For a CUDA target that is what our kernels, cuDNN and cuBLAS compute in the target's type.
    """
    from .compile import compile_graph

    sizes = _counted_sizes(directory, part)
    return compile_graph(part.graph, part.name, find_target(target), sizes).coverage


def measure_int8(directory: ModelDirectory) -> Int8Plan | None:
    """Which layers of the U-Net are in int8 when that is asked for. Reads their weights."""
    from .compile import compile_graph

    part = directory.parts["unet"]
    target = find_target("cpu-int8")
    return compile_graph(part.graph, part.name, target, _counted_sizes(directory, part)).int8


def _key(directory: ModelDirectory, target: Target, cache: EngineCache) -> str:
    digest = hashlib.blake2b(digest_size=10)
    for name, part in sorted(directory.parts.items()):
        for file in (part.graph, *part.external_files):
            digest.update(f"{name}/{file.name}:{cache.fingerprint(file)}\n".encode())
    version = f"{_core.__version__}-{COMPILER_VERSION}"
    return f"{digest.hexdigest()}-{target.name}-{version}"


def _build(
    folder: Path, directory: ModelDirectory, target: Target, progress: Progress | None
) -> None:
    parts = {
        name: _build_part(folder / name, part, target, directory, progress)
        for name, part in directory.parts.items()
        if target.beside is None or name == "unet"
    }
    facts = {"model": directory.name, "target": target.name, "parts": parts}
    write_manifest(folder, facts)


def _build_part(
    folder: Path,
    part: Part,
    target: Target,
    directory: ModelDirectory,
    progress: Progress | None,
) -> dict[str, Any]:
    from .compile import compile_graph

    compiled = compile_graph(part.graph, part.name, target, _counted_sizes(directory, part))
    folder.mkdir()
    write_graphs(compiled, folder, part.name, progress)
    return {
        "graphs": list(compiled.graphs),
        "share": compiled.coverage.share,
        "split": dict(compiled.split),
        **({} if compiled.int8 is None else {"int8": compiled.int8.facts()}),
    }


def write_graphs(
    compiled: Compiled, folder: Path, part: str = "", progress: Progress | None = None
) -> dict[str, Path]:
    """Writes `name.onnx` and `name.weights` of each graph; gives the paths of the graphs."""
    import onnx_ir as ir

    paths = {name: folder / f"{name}.onnx" for name in compiled.graphs}
    for name, model in compiled.graphs.items():

        def report(_: Any, info: Any, name: str = name) -> None:
            if progress is not None:
                progress(f"{part}/{name}", info.index + 1, info.total)

        ir.save(
            model,
            paths[name],
            external_data=f"{name}.weights",
            size_threshold_bytes=_PAGE,
            callback=report,
            max_in_flight_bytes=_WEIGHTS_IN_FLIGHT,
            alignment=_PAGE,
            align_threshold=0,
        )
    return paths


def _counted_sizes(directory: ModelDirectory, part: Part) -> dict[str, int]:
    """Numbers for the names of a graph's free sizes: the model's own size, with guidance."""
    facts = directory.facts
    factor = 1 if part.name == "vae_encoder" else facts.vae_scale_factor
    batch = 2 if part.name in ("unet", "text_encoder") else 1
    image = (batch, 0, facts.default_height // factor, facts.default_width // factor)
    places = {
        "sample": image,
        "latent_sample": image,
        "timestep": (1,),
        "encoder_hidden_states": (batch, facts.max_tokens, 0),
        "input_ids": (batch, facts.max_tokens),
    }
    sizes: dict[str, int] = {}
    for spec in part.signature.inputs:
        numbers = places.get(spec.name, ())
        for axis, (size, number) in enumerate(zip(spec.shape, numbers, strict=False)):
            if not isinstance(size, int):
                sizes[size or f"{spec.name}.{axis}"] = number
    return sizes
