"""Reads a graph without trusting it: size, wire format, limits and everything that it points to.

The runtime parses the same file later in C++; what is checked here are the things that have been
holes or crashes there: paths out of the directory, sizes that do not fit, nested graphs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..checks import shown
from ..errors import (
    ModelError,
    ModelFormatError,
    OutOfMemoryError,
    UnsafeModelError,
    UnsupportedModelError,
)
from .files import ModelFiles
from .limits import (
    MAX_DEPTH,
    MAX_DIM,
    MAX_GRAPH_BYTES,
    MAX_GRAPH_BYTES_WITH_EXTERNAL_DATA,
    MAX_INITIALIZERS,
    MAX_NODES,
    MAX_PROBLEMS,
    MAX_RANK,
)
from .problems import EXPORT_AGAIN, TRUNCATED, text_of
from .signature import ONNX_DTYPES, GraphSignature, TensorSpec
from .tensors import TensorChecker

if TYPE_CHECKING:
    import onnx

__all__ = ["GraphFacts", "check_graph"]

_DOMAINS = ("", "ai.onnx", "com.microsoft", "ai.textopia")
_CONTROL_FLOW = ("If", "Loop", "Scan", "SequenceMap")


@dataclass(frozen=True)
class GraphFacts:
    """What was read from one checked graph file.

    Attributes:
        signature: Inputs and outputs.
        nodes: Number of nodes.
        parameters: Number of values in all stored weights.
        opset: Version of the standard operator set.
        producer: Program that wrote the graph, as it calls itself.
        file_bytes: Size of the graph's file.
        external: Paths of the files that hold further weights.
        external_bytes: Their size together.
    """

    signature: GraphSignature
    nodes: int
    parameters: int
    opset: int
    producer: str
    file_bytes: int
    external: tuple[Path, ...]
    external_bytes: int


def check_graph(
    files: ModelFiles, path: Path, component: str
) -> tuple[GraphFacts | None, list[ModelError]]:
    """Reads and checks one graph.

    Args:
        files: The model directory.
        path: The graph's file, usually `model.onnx`.
        component: Name of the part, for messages.

    Returns:
        The facts (None when there are problems) and the list of problems, at most 20.
    """
    try:
        model, size = _parse(files, path, component)
    except ModelError as error:
        return None, [error]
    checker = TensorChecker(files, path, component)
    problems: list[ModelError] = []
    try:
        for problem in _check_model(model, checker, size, files.label(path), component):
            problems.append(problem)
            if len(problems) == MAX_PROBLEMS:
                break
        facts = None if problems else _facts(model, checker, size, files, component)
    except UnicodeDecodeError as error:
        facts = None
        problems.append(_format(files.label(path), component, "has names that are not UTF-8"))
        problems[-1].__cause__ = error
    return facts, problems


def _parse(files: ModelFiles, path: Path, component: str) -> tuple[onnx.ModelProto, int]:
    import onnx
    from google.protobuf.message import DecodeError

    label = files.label(path)
    facts = {"component": component, "path": label}
    try:
        data = files.read(path, MAX_GRAPH_BYTES, component)
        if not data:
            raise ModelFormatError(f"{label}: is empty (0 bytes).", hint=TRUNCATED, **facts)
        model = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise ModelFormatError(
            f"{label}: is no ONNX graph, or was cut short ({len(data):,} bytes).",
            hint=TRUNCATED,
            cause=shown(str(error), 200),
            **facts,
        ) from error
    except MemoryError as error:
        raise OutOfMemoryError(
            f"{label}: not enough memory to read it.", stage="load", **facts
        ) from error
    if not model.ir_version or not model.HasField("graph") or not model.graph.output:
        raise ModelFormatError(
            f"{label}: is no ONNX graph (no version, no graph or no outputs).",
            hint=TRUNCATED,
            **facts,
        )
    return model, len(data)


def _check_model(
    model: onnx.ModelProto, checker: TensorChecker, size: int, label: str, component: str
) -> Iterator[ModelError]:
    facts = {"component": component, "path": label}

    def unsafe(text: str, rule: str) -> ModelError:
        return UnsafeModelError(f"{label}: {text}.", rule=rule, **facts)

    if model.functions:
        yield unsafe(f"has {len(model.functions):,} local functions, none are allowed", "functions")
    nodes = initializers = 0
    for graph, depth in _graphs(model.graph):
        nodes += len(graph.node)
        initializers += len(graph.initializer) + len(graph.sparse_initializer)
        if depth > MAX_DEPTH or nodes > MAX_NODES or initializers > MAX_INITIALIZERS:
            yield unsafe(
                f"has {nodes:,} nodes and {initializers:,} stored tensors at depth {depth}; "
                f"allowed are {MAX_NODES:,}, {MAX_INITIALIZERS:,} and depth {MAX_DEPTH}",
                "size",
            )
            return
        yield from _check_nodes(graph, label, facts)
        for tensor in _stored_tensors(graph):
            yield from checker.check(tensor)
        for value in (*graph.input, *graph.output, *graph.value_info):
            dims = value.type.tensor_type.shape.dim
            if len(dims) > MAX_RANK or any(not 0 <= dim.dim_value <= MAX_DIM for dim in dims):
                yield unsafe(
                    f"{shown(value.name)} has a rank above {MAX_RANK} or a size outside 0 to "
                    f"{MAX_DIM:,}",
                    "dims",
                )
    yield from checker.overlaps()
    for value in (*model.graph.input, *model.graph.output):
        if not value.type.HasField("tensor_type"):
            yield UnsupportedModelError(
                f"{label}: {shown(value.name)} is not a plain tensor.", **facts
            )
    if checker.external and size > MAX_GRAPH_BYTES_WITH_EXTERNAL_DATA:
        yield unsafe(
            f"has {size:,} bytes although its weights are in other files; at most "
            f"{MAX_GRAPH_BYTES_WITH_EXTERNAL_DATA:,} are allowed then",
            "size",
        )


def _graphs(top: onnx.GraphProto) -> Iterator[tuple[onnx.GraphProto, int]]:
    """The graph and all graphs inside of its nodes' attributes, with their depth."""
    pending = [(top, 1)]
    while pending:
        graph, depth = pending.pop()
        yield graph, depth
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    pending.append((attribute.g, depth + 1))
                pending.extend((inner, depth + 1) for inner in attribute.graphs)


def _stored_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor with data: weights, constants, dense or sparse."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            sparse_tensors = list(attribute.sparse_tensors)
            if attribute.HasField("sparse_tensor"):
                sparse_tensors.append(attribute.sparse_tensor)
            for sparse in sparse_tensors:
                yield sparse.values
                yield sparse.indices


def _check_nodes(graph: onnx.GraphProto, label: str, facts: dict[str, str]) -> Iterator[ModelError]:
    strange: set[str] = set()
    for node in graph.node:
        domain, op_type = text_of(node.domain), text_of(node.op_type)
        if domain not in _DOMAINS:
            strange.add(f"{domain}::{op_type}")
        elif op_type in _CONTROL_FLOW:
            strange.add(op_type)
    for name in sorted(strange):
        allowed = "operators of ai.onnx (without If, Loop and Scan), com.microsoft and ai.textopia"
        yield UnsupportedModelError(
            f"{label}: uses the operator {shown(name)}; allowed are {allowed}.", op=name, **facts
        )


def _facts(
    model: onnx.ModelProto, checker: TensorChecker, size: int, files: ModelFiles, component: str
) -> GraphFacts:
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = tuple(_spec(value) for value in model.graph.input if value.name not in stored)
    outputs = tuple(_spec(value) for value in model.graph.output)
    external = tuple(checker.external.values())
    versions = [o.version for o in model.opset_import if o.domain in ("", "ai.onnx")]
    return GraphFacts(
        signature=GraphSignature(inputs, outputs),
        nodes=len(model.graph.node),
        parameters=sum(math.prod(t.dims) for t in _stored_tensors(model.graph)),
        opset=max(versions, default=0),
        producer=f"{text_of(model.producer_name)} {text_of(model.producer_version)}".strip(),
        file_bytes=size,
        external=external,
        external_bytes=sum(files.stat(path, component).st_size for path in external),
    )


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(
        dim.dim_value if dim.HasField("dim_value") else (text_of(dim.dim_param) or None)
        for dim in tensor.shape.dim
    )
    dtype = ONNX_DTYPES.get(tensor.elem_type, f"onnx type {tensor.elem_type}")
    return TensorSpec(text_of(value.name), dtype, shape)


def _format(label: str, component: str, text: str) -> ModelError:
    return ModelFormatError(
        f"{label}: {text}.",
        hint=EXPORT_AGAIN,
        component=component,
        path=label,
    )
