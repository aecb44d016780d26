"""Loop-invariant code motion: the U-Net is the body of a loop, and parts of it need not be in it.

Nodes that depend on the timestep alone go to a *time graph*, run once for all steps; nodes that
depend on the prompt alone go to a *prompt graph*, run once. What depends on neither the prompt nor
the half of guidance runs once per image, and is repeated for both halves where they part. All of it
is exact: the nodes stay the same.

    time graph    timestep [R] -> time_features [R, N]         one row per step, or per image
    prompt graph  encoder_hidden_states [P, T, D] -> prompt.0, prompt.1 ...
    body          sample [B, C, H, W], time_features [B, N], prompt.0 [P, ...] ...
                  -> out_sample [P, C, H, W]

P is B, or a multiple of it: image b takes rows b, b + B, ... of the prompt's values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from .dims import Dim, symbols_of
from .edit import Editor, attribute, content_of, dims_of, is_op, present, producer

__all__ = ["PROMPT_INPUTS", "TIME_FEATURES", "TIME_INPUTS", "Parts", "split_loop"]

TIME_INPUTS = ("timestep", "timestep_cond")
PROMPT_INPUTS = ("encoder_hidden_states", "text_embeds", "time_ids")
TIME_FEATURES = "time_features"
_ROWS = "prompt_rows"
_MOVES = ("Reshape", "Transpose", "Unsqueeze", "Squeeze")
_MADE_OF_SIZES = ("Shape", "Size")


@dataclass(frozen=True)
class Parts:
    """The graphs of one U-Net.

    Attributes:
        body: What remains in the loop.
        time: timestep -> time_features; None when nothing depends on the timestep alone.
        prompt: Inputs of the prompt -> prompt.0 ...; None when nothing depends on them alone.
        counts: Nodes in "time", "prompt", "prefix" (of the body, shared by the halves of guidance)
            and "body" (the rest of it).
    """

    body: ir.Graph
    time: ir.Graph | None
    prompt: ir.Graph | None
    counts: Mapping[str, int]


def split_loop(editor: Editor, shares_prefix: bool = True) -> Parts:
    """Splits a U-Net that has been fused. `editor`'s graph is used up.

    Args:
        editor: The whole U-Net.
        shares_prefix: Whether the body computes its first nodes once per image, and so takes
            `sample` with B rows; else, and where nothing can be shared, it takes P.
    """
    graph = editor.graph
    rows = _drop_expand(editor)
    depends = _dependencies(graph)
    of_time = _without_last_moves(graph, _group(graph, depends, TIME_INPUTS))
    of_prompt = _without_last_moves(graph, _group(graph, depends, PROMPT_INPUTS))
    time_values = _borders(graph, of_time)
    if rows is None or any(len(dims_of(value) or ()) != 2 for value in time_values):
        of_time, time_values = set(), []
    prompt_values = _borders(graph, of_prompt)
    if not _have_rows_of_inputs(graph, prompt_values):
        of_prompt, prompt_values = set(), []
    counts = {"time": len(of_time), "prompt": len(of_prompt)}

    time = prompt = None
    if time_values:
        features = _joined(graph, time_values)
        time = _cut_out(graph, {TIME_FEATURES: features})
        _feed_features(editor, features, time_values)
    if prompt_values:
        names = {f"prompt.{index}": value for index, value in enumerate(prompt_values)}
        prompt = _cut_out(graph, names)
        for name, value in names.items():
            _feed(editor, value, _input_like(graph, value, name))
    editor.prune()
    _drop_unused_inputs(graph)
    counts["prefix"] = _share_prefix(editor) if shares_prefix else 0
    editor.prune()
    counts["body"] = graph.num_nodes() - counts["prefix"]
    return Parts(graph, time, prompt, counts)


def _dependencies(graph: ir.Graph) -> dict[ir.Value, frozenset[str]]:
    """Inputs of the graph whose elements each value depends on; its sizes do not count."""
    depends: dict[ir.Value, frozenset[str]] = {
        value: frozenset([value.name or ""]) for value in graph.inputs
    }
    for node in graph:
        found: frozenset[str] = frozenset()
        if not is_op(node, *_MADE_OF_SIZES):
            found = found.union(
                *(depends.get(v, frozenset()) for v in node.inputs if v is not None)
            )
        for output in node.outputs:
            depends[output] = found
    return depends


def _group(
    graph: ir.Graph, depends: Mapping[ir.Value, frozenset[str]], names: tuple[str, ...]
) -> set[ir.Node]:
    """Nodes that depend on `names` alone, and need no size of another input."""
    allowed = {value for value in graph.inputs if value.name in names}
    group: set[ir.Node] = set()
    for node in graph:
        found = depends[node.outputs[0]]
        if not found or not found <= set(names):
            continue
        if all(_reaches_only(value, allowed, group) for value in node.inputs if value is not None):
            group.add(node)
    return group


def _without_last_moves(graph: ir.Graph, group: set[ir.Node]) -> set[ir.Node]:
    """Leaves [B, C] -> [B, C, 1, 1] and the like to the others: what is handed over is [B, C]."""
    for node in reversed(graph):
        readers = {use.node for output in node.outputs for use in output.uses()}
        if node in group and is_op(node, *_MOVES) and not readers & group:
            group.discard(node)
    return group


def _have_rows_of_inputs(graph: ir.Graph, values: list[ir.Value]) -> bool:
    """Whether each value has one row for each of the prompt, as the loop supposes."""
    rows = {(dims_of(v) or (None,))[0] for v in graph.inputs if v.name in PROMPT_INPUTS}
    return {(dims_of(value) or (None,))[0] for value in values} <= rows


def _reaches_only(value: ir.Value, allowed: set[ir.Value], group: set[ir.Node]) -> bool:
    """Whether `value` comes from `allowed` inputs, from `group`, or from stored tensors."""
    pending, seen = [value], set()
    while pending:
        value = pending.pop()
        node = value.producer()
        if value in seen or value in allowed or value.is_initializer() or node in group:
            continue
        seen.add(value)
        if node is None:
            return False
        pending.extend(v for v in node.inputs if v is not None)
    return True


def _borders(graph: ir.Graph, group: set[ir.Node]) -> list[ir.Value]:
    """Values that `group` makes and others read."""
    return [
        output
        for node in graph
        if node in group
        for output in node.outputs
        if output.is_graph_output() or any(use.node not in group for use in output.uses())
    ]


def _drop_expand(editor: Editor) -> ir.Value | None:
    """Gives the timestep one row per image, instead of having the graph spread one step to them.

    Returns the timestep; None when its rows are not those of the images.
    """
    graph = editor.graph
    timestep = next((value for value in graph.inputs if value.name == "timestep"), None)
    sample = next((value for value in graph.inputs if value.name == "sample"), None)
    if timestep is None or sample is None:
        return None
    batch, dims = (dims_of(sample) or (None,))[0], dims_of(timestep)
    if dims == (batch,):
        return timestep
    for node in tuple(graph):
        if not is_op(node, "Expand") or dims_of(node.outputs[0]) != (batch,):
            continue
        source, dtype = node.inputs[0], None
        while (before := producer(source, "Unsqueeze", "Reshape", "Squeeze", "Cast")) is not None:
            source = before.inputs[0]
            dtype = dtype or attribute(before, "to")
        if source is not timestep:
            continue
        timestep.shape = ir.Shape([batch if isinstance(batch, int) else str(batch)])
        timestep.meta["dims"] = (batch,)
        rows = timestep if dtype is None else editor.op(node, "Cast", timestep, to=int(dtype))
        editor.replace(node.outputs[0], rows)
        editor.prune()
        return timestep
    return None


def _joined(graph: ir.Graph, values: list[ir.Value]) -> ir.Value:
    """All values side by side, at the end of the graph."""
    node = ir.node("Concat", values, {"axis": 1})
    graph.append(node)
    output = node.outputs[0]
    output.name, output.type = f"tx/{TIME_FEATURES}", values[0].type
    widths = [(dims_of(value) or (0, 0))[1] for value in values]
    output.meta["dims"] = ((dims_of(values[0]) or (1,))[0], sum(widths))
    return output


def _feed_features(editor: Editor, features: ir.Value, values: list[ir.Value]) -> None:
    """Lets the body take its time features out of one input."""
    graph = editor.graph
    joined = present(features.producer())
    graph.remove(joined, safe=True)
    widths = np.array([(dims_of(value) or (0, 0))[1] for value in values], np.int64)
    whole = _input_like(graph, features, TIME_FEATURES)
    inputs = [whole, editor.store(widths, "widths")]
    parts = editor.add(graph[0], "Split", inputs, {"axis": 1}, outputs=len(values))
    for value, part in zip(values, parts.outputs, strict=True):
        part.type = value.type
        _feed(editor, value, part)


def _feed(editor: Editor, old: ir.Value, new: ir.Value) -> None:
    for use in tuple(old.uses()):
        use.node.replace_input_with(use.idx, new)
    if old.is_graph_output():
        editor.replace(old, new)


def _input_like(graph: ir.Graph, value: ir.Value, name: str) -> ir.Value:
    dims = dims_of(value) or ()
    made = ir.Value(
        name=name,
        type=value.type,
        shape=ir.Shape([size if isinstance(size, int) else str(size) for size in dims]),
    )
    made.meta["dims"] = dims
    graph.inputs.append(made)
    return made


def _drop_unused_inputs(graph: ir.Graph) -> None:
    for value in tuple(graph.inputs):
        if not value.uses() and not value.is_graph_output():
            graph.inputs.remove(value)


def _cut_out(graph: ir.Graph, outputs: Mapping[str, ir.Value]) -> ir.Graph:
    """A copy of what makes `outputs`, as a graph of its own; stored tensors are shared."""
    needed: set[ir.Node] = set()
    pending = list(outputs.values())
    while pending:
        node = pending.pop().producer()
        if node is not None and node not in needed:
            needed.add(node)
            pending.extend(value for value in node.inputs if value is not None)
    copies: dict[ir.Value, ir.Value] = {}

    def copy_of(value: ir.Value | None) -> ir.Value | None:
        if value is None:
            return None
        if value not in copies:
            made = ir.Value(
                name=value.name, type=value.type, shape=value.shape, const_value=value.const_value
            )
            made.meta.update(value.meta)
            copies[value] = made
        return copies[value]

    nodes = [
        ir.Node(
            node.domain,
            node.op_type,
            [copy_of(value) for value in node.inputs],
            node.attributes.values(),
            outputs=[made for out in node.outputs if (made := copy_of(out)) is not None],
            name=node.name,
        )
        for node in graph
        if node in needed
    ]
    used = {value for node in needed for value in node.inputs if value is not None}
    results = []
    for name, value in outputs.items():
        result = copies[value]
        result.name = name
        dims = dims_of(value) or ()
        result.shape = ir.Shape([size if isinstance(size, int) else str(size) for size in dims])
        results.append(result)
    return ir.Graph(
        [copies[value] for value in graph.inputs if value in used],
        results,
        nodes=nodes,
        initializers=[copies[value] for value in graph.initializers.values() if value in used],
        opset_imports=dict(graph.opset_imports),
        name=graph.name,
    )


# --- the prefix that the halves of guidance share


def _share_prefix(editor: Editor) -> int:
    """Lets what does not depend on the prompt run on B rows; gives the number of such nodes."""
    graph = editor.graph
    sample = next((value for value in graph.inputs if value.name == "sample"), None)
    prompts = [v for v in graph.inputs if v.name not in ("sample", TIME_FEATURES, *TIME_INPUTS)]
    batch = (dims_of(sample) or (None,))[0]
    if sample is None or not prompts or not isinstance(batch, Dim):
        return 0
    names = {value.name for value in prompts}
    depends = _dependencies(graph)
    prefix = {
        node
        for node in graph
        if depends[node.outputs[0]] and not (depends[node.outputs[0]] & names)
    }
    if not any(node.op_type == "Conv" for node in prefix):
        return 0
    crossing = _borders(graph, prefix)
    later = [node for node in graph if depends[node.outputs[0]] & names]
    if any(
        value.is_graph_output() or (dims_of(value) or (None,))[0] != batch for value in crossing
    ):
        return 0
    if _uses_batch(later, batch):
        return 0
    # The runtime shares memory between values whose sizes have one name: P is not B any more.
    for value in (*prompts, *graph.outputs):
        _rename_rows(value, batch)
    rows = _rows(editor, sample, prompts[0])
    parted: dict[ir.Node, ir.Node] = {}
    for value in crossing:
        node = present(value.producer())
        if is_op(node, "Split"):  # of the time features: repeated as a whole, and split again
            if node not in parted:
                whole = _repeated(editor, node.inputs[0], rows, before=node)
                parted[node] = editor.add(
                    node, "Split", [whole, node.inputs[1]], {"axis": 1}, outputs=len(node.outputs)
                )
            repeated = parted[node].outputs[node.outputs.index(value)]
            repeated.type = value.type
        else:
            repeated = _repeated(editor, value, rows, before=None)
        for use in tuple(value.uses()):
            if use.node not in prefix and use.node is not repeated.producer():
                use.node.replace_input_with(use.idx, repeated)
    return len(prefix)


def _rename_rows(value: ir.Value, batch: Dim) -> None:
    shape = value.shape
    if shape is not None and len(shape) and not isinstance(shape[0], int):
        value.shape = ir.Shape([_ROWS, *list(shape)[1:]])
    dims = dims_of(value)
    if dims and dims[0] == batch:
        value.meta["dims"] = (Dim.symbol(_ROWS), *dims[1:])


def _repeated(
    editor: Editor, value: ir.Value | None, rows: ir.Value, before: ir.Node | None
) -> ir.Value:
    """Rows `rows` of `value`, computed in front of `before` or right after `value`."""
    value = present(value)
    node = editor.make("Gather", [value, rows], {"axis": 0})
    if before is not None:
        editor.graph.insert_before(before, node)
    else:
        editor.graph.insert_after(present(value.producer()), node)
    node.outputs[0].meta["dims"] = dims_of(value)
    node.outputs[0].type = value.type
    return node.outputs[0]


def _uses_batch(nodes: list[ir.Node], batch: Dim) -> bool:
    """Whether a node reads the number of images of `sample` as a number."""
    names = set(symbols_of(batch))
    for node in nodes:
        for value in node.inputs:
            content = content_of(value)
            for size in () if content is None else content.reshape(-1):
                if names & set(symbols_of(size)):
                    return True
    return False


def _rows(editor: Editor, sample: ir.Value, prompt: ir.Value) -> ir.Value:
    """[0 .. P-1] modulo B, before all other nodes."""
    graph = editor.graph
    anchor = graph[0]
    zero = editor.store(np.array(0, np.int64), "zero")
    one = editor.store(np.array(1, np.int64), "one")
    images = editor.op(anchor, "Gather", editor.op(anchor, "Shape", sample), zero, axis=0)
    total = editor.op(anchor, "Gather", editor.op(anchor, "Shape", prompt), zero, axis=0)
    index = editor.op(anchor, "Range", zero, total, one)
    rows: ir.Value = editor.op(anchor, "Mod", index, images)
    return rows
