"""Compiles one exported graph: reads it, runs the passes in order, gives an engine's graphs."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import (
    ClearMetadataAndDocStringPass,
    CommonSubexpressionEliminationPass,
    LiftConstantsToInitializersPass,
    RemoveInitializersFromInputsPass,
    TopologicalSortPass,
)

from ..checks import shown
from ..errors import InternalError, ModelFormatError, TextopiaError, UnsupportedModelError
from .coverage import Coverage, measure
from .edit import DOMAIN, Editor
from .folding import fold
from .fusion import EARLY, LATE
from .headroom import give_headroom
from .layout import to_channels_last
from .lowering import lower
from .opsets import settle_for_cuda
from .packing import pack_weights
from .precision import narrow, widen
from .quantising import Int8Plan, plan_int8
from .shapes import Shaper
from .split import TIME_FEATURES, split_loop
from .targets import Target

# Its warnings about malformed graphs would go to stderr; what matters becomes an error here.
logging.getLogger("onnx_ir").addHandler(logging.NullHandler())

__all__ = ["Compiled", "compile_graph"]

_OPSETS = range(13, 25)
_DTYPES = {
    "float32": ir.DataType.FLOAT,
    "bfloat16": ir.DataType.BFLOAT16,
    "float16": ir.DataType.FLOAT16,
}


@dataclass(frozen=True)
class Compiled:
    """The graphs of one network, ready to be written.

    Attributes:
        graphs: Models by name: "model", or for a U-Net "body", "time" and "prompt" (those that
            exist). Weights are still in the export's files and converted as they are written.
        coverage: Arithmetic in fused operators, counted before the precision was narrowed.
        split: Nodes in "time", "prompt", "prefix" and "body"; empty for other networks.
        int8: What of the body is in int8; None where nothing was to be.
    """

    graphs: Mapping[str, ir.Model]
    coverage: Coverage
    split: Mapping[str, int]
    int8: Int8Plan | None = None


def compile_graph(
    path: Path,
    role: str,
    target: Target,
    sizes: Mapping[str, int] | None = None,
) -> Compiled:
    """Compiles the graph in a file that `models.graphs.check_graph` has checked.

    Args:
        path: The graph; external data lies beside it.
        role: "unet" (which is split), "text_encoder", "vae_decoder" or "vae_encoder".
        target: What to compile for.
        sizes: Free sizes at which the arithmetic is counted, by name.

    Raises:
        ModelFormatError: The graph cannot be read.
        UnsupportedModelError: An operator set that the passes do not know, or nested graphs.
        InternalError: A pass failed: a bug.
    """
    model = _read(path)
    try:
        return _compile(model, role, target, sizes or {})
    except TextopiaError:
        raise
    except Exception as error:
        raise InternalError(
            f"{shown(path)}: the graph compiler failed ({shown(str(error), 200)}).",
            hint="Run the model without it (precision='fp32') and report this, please.",
            path=str(path),
        ) from error


def _read(path: Path) -> ir.Model:
    try:
        model = ir.load(path)
        for prepare in (
            ClearMetadataAndDocStringPass(),
            RemoveInitializersFromInputsPass(),
            LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            TopologicalSortPass(),  # converters to float16 leave their nodes at the end
        ):
            prepare(model)
    except Exception as error:  # whatever a malformed graph makes the library raise
        raise ModelFormatError(
            f"{shown(path)}: the graph cannot be read ({shown(str(error), 200)}).", path=str(path)
        ) from error
    version = model.opset_imports.get("", 0)
    if version not in _OPSETS:
        raise UnsupportedModelError(
            f"{shown(path)}: operator set {version}, compiled are {_OPSETS[0]} to {_OPSETS[-1]}.",
            hint="Export the model again with a newer operator set.",
            path=str(path),
        )
    if model.functions or any(True for _ in model.graph.subgraphs()):
        raise UnsupportedModelError(
            f"{shown(path)}: has functions or nested graphs, none are compiled.", path=str(path)
        )
    inputs = set(model.graph.inputs)
    for value in (value for node in model.graph for value in node.inputs if value is not None):
        if value.producer() is None and not value.is_initializer() and value not in inputs:
            raise ModelFormatError(
                f"{shown(path)}: nothing makes {shown(value.name)}, which a node reads.",
                path=str(path),
            )
    return model


def _compile(model: ir.Model, role: str, target: Target, sizes: Mapping[str, int]) -> Compiled:
    graph = model.graph
    if target.fuses:
        widen(graph)
    editor = Editor(graph, Shaper(graph))
    fold(editor)
    if target.fuses:
        for fuse in EARLY:
            fuse(editor)
        to_channels_last(editor)
        for fuse in LATE:
            fuse(editor)
    CommonSubexpressionEliminationPass()(model)
    if role.startswith("vae_") and target.device == "cuda" and target.dtype == "float16":
        give_headroom(editor)
    graphs: dict[str, ir.Graph] = {"model": graph}
    counts: Mapping[str, int] = {}
    if role == "unet":
        parts = split_loop(editor, target.shares_prefix)
        counts = parts.counts
        named = {"body": parts.body, "time": parts.time, "prompt": parts.prompt}
        graphs = {name: part for name, part in named.items() if part is not None}
    if target.device == "cuda":
        for part in graphs.values():
            _lower(Editor(part, editor.shaper), target)
    coverage = measure(list(graphs.values()), sizes)
    plan: Int8Plan | None = None
    if target.beside is not None:
        graphs = {name: part for name, part in graphs.items() if name == "body"}
        plan = plan_int8(graphs["body"], sizes)
    for part in graphs.values():
        _finish(part, editor.shaper, target, plan.chosen if plan is not None else ())
    models = {name: _model(part, target) for name, part in graphs.items()}
    return Compiled(models, coverage, counts, plan)


def _lower(editor: Editor, target: Target) -> None:
    lower(editor, narrow_resize=target.dtype == "float16")  # there is none for bfloat16
    settle_for_cuda(editor, _DTYPES[target.dtype])


def _finish(graph: ir.Graph, shaper: Shaper, target: Target, in_int8: Collection[ir.Node]) -> None:
    """Element types and weights, as the target wants them."""
    # Sizes as the export states them are names, and some passes have changed what they stand for.
    kept = {*graph.inputs, *graph.outputs}
    for output in (out for node in graph for out in node.outputs if out not in kept):
        output.shape = None
    if not target.fuses:
        return
    editor = Editor(graph, shaper)
    dtype = _DTYPES[target.dtype]
    inner = [
        value.name or ""
        for value in (*graph.inputs, *graph.outputs)
        if value.name == TIME_FEATURES or (value.name or "").startswith("prompt.")
    ]
    narrow(editor, dtype, inner)
    pack_weights(editor, target.weight_format, dtype, in_int8)


def _model(graph: ir.Graph, target: Target) -> ir.Model:
    if target.fuses:
        graph.opset_imports[DOMAIN] = 1
    return ir.Model(graph, ir_version=10, producer_name="textopia_fast")
