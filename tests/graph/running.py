"""Runs graphs of these tests: an export on ONNX Runtime, a compiled graph in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from tests.reference.fused_ops import run
from textopia_fast.graph.compile import Compiled, compile_graph
from textopia_fast.graph.edit import Editor
from textopia_fast.graph.folding import fold
from textopia_fast.graph.shapes import Shaper
from textopia_fast.graph.targets import find_target

GOLDEN = Path(__file__).parents[1] / "golden"
EXPORTS = GOLDEN / "graphs"
HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
Feeds = Mapping[str, np.ndarray]


@lru_cache(maxsize=32)
def compiled_export(name: str, role: str, target: str = "reference") -> Compiled:
    """An export of `tests/golden/graphs`, compiled once for all tests; running changes nothing."""
    return compile_graph(EXPORTS / f"{name}.onnx", role, find_target(target))


def run_export(source: Path | onnx.ModelProto, feeds: Feeds) -> list[np.ndarray]:
    """What ONNX Runtime makes of an export."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    # As written: its own fusions take some look-alikes for layer norms.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    data = str(source) if isinstance(source, Path) else source.SerializeToString()
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, dict(feeds))


def run_compiled(model: ir.Model, feeds: Feeds) -> dict[str, np.ndarray]:
    """Results by name of a graph with fused operators."""
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, skip_opset_compatibility_check=False)
    wanted = {value.name for value in proto.graph.input}
    results = run(proto, {name: array for name, array in feeds.items() if name in wanted})
    names = [value.name for value in proto.graph.output]
    return dict(zip(names, results, strict=True))


def run_rounded(model: ir.Model, feeds: Feeds) -> dict[str, np.ndarray]:
    """Results of a graph with 16-bit values, each rounded where it is stored and nowhere else.

    Kernels add up in float32, which onnx's evaluator does not do in 16 bits: so it is given a
    float32 graph in which every 16-bit value is rounded.
    """
    proto = ir.to_proto(model)
    graph = proto.graph
    narrow = {
        value.name: int(value.dtype)
        for node in model.graph
        for value in node.outputs
        if value.dtype in HALF
    }
    nodes = []
    for node in graph.node:
        nodes.append(node)
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.i in HALF:
                attribute.i = onnx.TensorProto.FLOAT
        for index, name in enumerate(node.output):
            if name in narrow:
                node.output[index] = f"{name}/exact"
                made = (node.output[index], f"{name}/rounded", name)
                for source, result, to in zip(made, made[1:], (narrow[name], 1), strict=False):
                    nodes.append(onnx.helper.make_node("Cast", [source], [result], to=to))
    del graph.node[:]
    graph.node.extend(nodes)
    for tensor in graph.initializer:
        if tensor.data_type in HALF:
            array = onnx.numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in HALF:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    wanted = {value.name for value in graph.input}
    results = run(proto, {name: array for name, array in feeds.items() if name in wanted})
    return dict(zip((value.name for value in graph.output), results, strict=True))


def relative_error(found: np.ndarray, exact: np.ndarray) -> float:
    """Relative L2 error."""
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


def editor_of(text: str, **stored: np.ndarray) -> Editor:
    """An editor over a graph in ONNX's text form; names in `stored` become stored tensors."""
    model = onnx.parser.parse_model(text)
    for name, array in stored.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    ready = ir.from_proto(model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(ready)
    return Editor(ready.graph, Shaper(ready.graph))


def compare(
    text: str,
    passes: Sequence[Callable[[Editor], None]],
    feeds: Feeds,
    atol: float = 1e-5,
    **stored: np.ndarray,
) -> Editor:
    """Folds a graph and carries out `passes`; it must still compute what it did. Gives it."""
    editor = editor_of(text, **stored)
    fold(editor)
    for change in passes:
        change(editor)
    model = onnx.parser.parse_model(text)
    for name, array in stored.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    expected = run_export(model, feeds)
    results = run_compiled(model_of(editor), feeds)
    for want, got in zip(expected, results.values(), strict=True):
        scale = max(1.0, float(np.abs(want).max()))
        np.testing.assert_allclose(got, want, rtol=0, atol=atol * scale)
    return editor


def model_of(editor: Editor) -> ir.Model:
    """The graph of an editor as a model."""
    editor.graph.opset_imports["ai.textopia"] = 1
    return ir.Model(editor.graph, ir_version=10)


def operators(graph: ir.Graph) -> list[str]:
    """Operators in the graph's order, ours as "tx.Conv"."""
    return [("tx." if node.domain == "ai.textopia" else "") + node.op_type for node in graph]


def inputs_of(
    name: str, batch: int, height: int, width: int, tokens: int, seed: int = 0
) -> dict[str, np.ndarray]:
    """Random inputs of an export by its file's name."""
    rng = np.random.default_rng(seed)
    path = GOLDEN / name if "/" in name else EXPORTS / f"{name}.onnx"
    if not path.exists():
        path = Path(name)
    feeds: dict[str, np.ndarray] = {}
    sizes = {"sample": (batch, 0, height, width), "latent_sample": (batch, 0, height, width)}
    sizes |= {"input_ids": (batch, tokens), "encoder_hidden_states": (batch, tokens, 0)}
    sizes |= {"text_embeds": (batch, 0), "time_ids": (batch, 0)}
    for value in onnx.load(path, load_external_data=False).graph.input:
        tensor = value.type.tensor_type
        fixed = [dim.dim_value for dim in tensor.shape.dim]
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
        if value.name == "timestep":
            feeds[value.name] = np.full([1] * len(fixed), 421, dtype)
            continue
        shape = [a or b for a, b in zip(fixed, sizes[value.name], strict=True)]
        if value.name == "input_ids":
            feeds[value.name] = rng.integers(0, 40, shape).astype(dtype)
        else:
            feeds[value.name] = rng.standard_normal(shape).astype(dtype)
    return feeds
