"""Opens a model directory: finds its parts, validates them, derives what a pipeline asks.

The layout is that of exported Stable Diffusion: `model_index.json`, one folder per part with
`model.onnx` and `config.json`, `tokenizer/`, `scheduler/scheduler_config.json`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..checks import shown
from ..errors import (
    ModelError,
    ModelFormatError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from .facts import DirectoryFacts, derive_facts
from .files import ModelFiles
from .graphs import GraphFacts, check_graph
from .problems import INCOMPLETE, Problems
from .signature import GraphSignature, Ports, classify

__all__ = ["BUNDLED", "SUPPORTED_CLASSES", "ModelDirectory", "Part", "open_directory"]

BUNDLED: Mapping[str, Path] = MappingProxyType(
    {"tiny-shapes": Path(__file__).resolve().parent / "tiny_shapes"}
)
"""Models inside of the package, by name."""

SUPPORTED_CLASSES = (
    "StableDiffusionPipeline",
    "ORTStableDiffusionPipeline",
    "OnnxStableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "ORTStableDiffusionImg2ImgPipeline",
    "ORTStableDiffusionInpaintPipeline",
    "LatentConsistencyModelPipeline",
    "ORTLatentConsistencyModelPipeline",
)
_LEGACY_CLASS = "OnnxStableDiffusionPipeline"
_REQUIRED_PARTS = ("text_encoder", "unet", "vae_decoder")
_OPTIONAL_PARTS = ("vae_encoder",)
# Entries of model_index.json that text-to-image does without; they are listed as unused.
_UNUSED = ("safety_checker", "feature_extractor", "image_encoder")


@dataclass(frozen=True)
class Part:
    """One network of the model.

    Attributes:
        name: "unet", "text_encoder", "vae_decoder" or "vae_encoder".
        graph: Path of its `model.onnx`.
        config: Contents of its `config.json`; empty for a legacy directory without one.
        ports: Its inputs and outputs by the names that a pipeline uses.
        facts: Sizes and counts of the graph.
    """

    name: str
    graph: Path
    config: Mapping[str, Any]
    ports: Ports
    facts: GraphFacts

    @property
    def signature(self) -> GraphSignature:
        """Inputs and outputs in the graph's order."""
        return self.facts.signature

    @property
    def external_files(self) -> tuple[Path, ...]:
        """Files beside the graph that hold its weights."""
        return self.facts.external


@dataclass(frozen=True)
class ModelDirectory:
    """A validated model directory; immutable.

    Attributes:
        path: The directory.
        name: Name of the bundled model, or the directory's own name.
        class_name: `_class_name` of model_index.json.
        parts: The networks by name.
        tokenizer: The tokenizer's directory.
        scheduler_config: Contents of scheduler_config.json.
        facts: Numbers derived from the configurations.
        defaults: What the model recommends where a call says nothing: "num_inference_steps" and
            "guidance_scale", from `_generation_defaults` of model_index.json, else diffusers'.
        unused: Components the directory has and this package does not run.
    """

    path: Path
    name: str
    class_name: str
    parts: Mapping[str, Part]
    tokenizer: Path
    scheduler_config: Mapping[str, Any]
    facts: DirectoryFacts
    defaults: Mapping[str, float]
    unused: tuple[str, ...]


def open_directory(name_or_path: str | os.PathLike[str]) -> ModelDirectory:
    """Reads and validates a model.

    Args:
        name_or_path: Name of a bundled model ("tiny-shapes") or path of a directory.

    Raises:
        ModelNotFoundError: No such directory, or a part is missing or unreadable.
        ModelFormatError: A file is not what it should be.
        ModelIntegrityError: A file is shorter than the graph says.
        UnsupportedModelError: A well-formed model of a kind that does not run here.
        UnsafeModelError: Something points out of the directory or exceeds a limit.
        Several findings come as one error; `details["problems"]` lists up to 20.
    """
    root, name = _resolve(name_or_path)
    files = ModelFiles(root)
    problems = Problems(root)
    index = files.read_json(root / "model_index.json")
    class_name = _class_name(index)
    defaults = _collect(problems, _defaults, index)
    legacy = class_name == _LEGACY_CLASS

    parts: dict[str, Part] = {}
    for part_name in (*_REQUIRED_PARTS, *_OPTIONAL_PARTS):
        folder = root / part_name
        if part_name in _OPTIONAL_PARTS and not os.path.lexists(folder):
            continue
        part = _open_part(files, folder, part_name, legacy, problems)
        if part is not None:
            parts[part_name] = part
    scheduler = _collect(problems, files.read_json, root / "scheduler" / "scheduler_config.json")
    tokenizer = _collect(problems, _tokenizer_config, files, root / "tokenizer")
    problems.raise_if_any()
    if (
        scheduler is None or tokenizer is None or defaults is None
    ):  # not reached: None comes with a problem
        raise ModelError(f"{shown(root)}: cannot be read.")

    facts = derive_facts(
        {key: part.config for key, part in parts.items()},
        {key: part.ports for key, part in parts.items()},
        tokenizer,
        legacy=legacy,
        problems=problems,
    )
    problems.raise_if_any()
    return ModelDirectory(
        path=root,
        name=name,
        class_name=class_name,
        parts=MappingProxyType(parts),
        tokenizer=root / "tokenizer",
        scheduler_config=MappingProxyType(scheduler),
        facts=facts,
        defaults=MappingProxyType(defaults),
        unused=tuple(key for key in _UNUSED if _is_present(index.get(key))),
    )


def _resolve(name_or_path: str | os.PathLike[str]) -> tuple[Path, str]:
    bundled = ", ".join(repr(key) for key in BUNDLED)
    try:
        text = os.fspath(name_or_path)
        if not isinstance(text, str):
            raise TypeError("bytes")
    except TypeError as error:
        raise ModelNotFoundError(
            f"model: {shown(name_or_path)} is neither a name nor a path.",
            hint=f"Give a directory or one of the bundled models: {bundled}.",
        ) from error
    if text in BUNDLED:
        root = BUNDLED[text]
        if not root.is_dir():
            raise ModelNotFoundError(
                f"model: {text!r} is missing from this installation.",
                hint="Install the package again.",
            )
        return root, text
    path = Path(text)
    try:
        found = bool(text) and path.stat() is not None
    except (OSError, ValueError) as error:
        if isinstance(error, PermissionError):
            raise ModelNotFoundError(
                f"model: {shown(text)} cannot be read ({error.strerror}).",
                hint="Check the directory's permissions.",
            ) from error
        found = False
    if not found:
        raise ModelNotFoundError(
            f"model: there is no directory {shown(text)}, and it is not the name of a bundled "
            f"model ({bundled}).",
            hint="Nothing is downloaded: give the path of an exported model.",
        )
    if not path.is_dir():
        raise ModelNotFoundError(
            f"model: {shown(text)} is a file, a model is a directory with model_index.json.",
            hint="Give the directory that holds the parts.",
        )
    return path, path.resolve().name


def _class_name(index: Mapping[str, Any]) -> str:
    found = index.get("_class_name")
    supported = ", ".join(SUPPORTED_CLASSES)
    if found not in SUPPORTED_CLASSES:
        raise UnsupportedModelError(
            f"model_index.json: _class_name is {shown(found)}, supported are {supported}.",
            hint="Export a Stable Diffusion 1.x or 2.x model."
            if found is not None
            else "Is this the top directory of an exported pipeline?",
            path="model_index.json",
        )
    return str(found)


def _defaults(index: Mapping[str, Any]) -> dict[str, float]:
    given = index.get("_generation_defaults", {})
    known = {"num_inference_steps": 50, "guidance_scale": 7.5}
    is_valid = isinstance(given, dict) and all(
        key in known and isinstance(value, int | float) and not isinstance(value, bool)
        for key, value in given.items()
    )
    if not is_valid:
        raise ModelFormatError(
            f"model_index.json: _generation_defaults is {shown(given)}, allowed are numbers for "
            f"{' and '.join(known)}.",
            path="model_index.json",
        )
    return {**known, **given}


def _open_part(
    files: ModelFiles, folder: Path, name: str, legacy: bool, problems: Problems
) -> Part | None:
    graph = folder / "model.onnx"
    if not folder.is_dir():
        there = "is not a directory" if os.path.lexists(folder) else "is missing"
        problems.add(
            ModelNotFoundError(
                f"{name}: {there}; a Stable Diffusion model has {', '.join(_REQUIRED_PARTS)}.",
                hint=INCOMPLETE,
                component=name,
                path=name,
            )
        )
        return None
    config_path = folder / "config.json"
    # Legacy directories have no configurations: their class has the numbers of SD 1.x built in.
    has_config = not legacy or os.path.lexists(config_path)
    config = _collect(problems, files.read_json, config_path, name) if has_config else {}
    facts, found = check_graph(files, graph, name)
    for problem in found:
        problems.add(problem)
    if facts is None or config is None:
        return None
    ports = _collect(problems, classify, facts.signature, name, files.label(graph))
    if ports is None:
        return None
    return Part(name, graph, MappingProxyType(config), ports, facts)


def _tokenizer_config(files: ModelFiles, folder: Path) -> dict[str, Any]:
    config = folder / "tokenizer_config.json"
    if os.path.lexists(config):
        return files.read_json(config, "tokenizer")
    if not folder.is_dir():
        raise ModelNotFoundError(
            "tokenizer: is missing.",
            hint=INCOMPLETE,
            component="tokenizer",
            path="tokenizer",
        )
    return {}


def _collect(problems: Problems, read: Any, *args: Any) -> Any:
    """The value of `read(*args)`, or None after noting its error."""
    try:
        return read(*args)
    except ModelError as error:
        problems.add(error)
        return None


def _is_present(entry: object) -> bool:
    return isinstance(entry, list) and any(item is not None for item in entry)
