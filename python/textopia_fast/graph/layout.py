"""Layout: images stay [B, H, W, C] from border to border; tokens are the same bytes.

Fused operators stand between Transposes at first. Here Transposes move down through what does not
care for the order of axes, meet their inverses and vanish; what is left between an image and its
tokens is a Reshape, which moves nothing.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from .edit import Editor, attribute, constant, content_of, dims_of, is_op, users
from .fusion.activations import INTERNAL
from .movement import chains_to, same_order
from .sizes import SizeWriter

__all__ = ["to_channels_last"]

_TO_LAST, _TO_SECOND = [0, 2, 3, 1], [0, 3, 1, 2]
_ROUNDS = 8
_POINTWISE = (
    "Abs",
    "Add",
    "Cast",
    "Ceil",
    "Clip",
    "Cos",
    "Div",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "LeakyRelu",
    "Log",
    "Max",
    "Min",
    "Mul",
    "Neg",
    "Pow",
    "Relu",
    "Reciprocal",
    "Round",
    "Sigmoid",
    "Sign",
    "Sin",
    "Softplus",
    "Sqrt",
    "Sub",
    "Tanh",
)


def to_channels_last(editor: Editor) -> None:
    """Pushes Transposes down, cancels them and joins chains of Reshape and Transpose."""
    for _ in range(_ROUNDS):
        changed = False
        for node in tuple(editor.graph):
            if node.graph is not None:
                changed |= _push(editor, node)
        editor.prune()
        changed |= _join_chains(editor)
        if not changed:
            return


def _from_last(value: ir.Value | None) -> ir.Value | None:
    """The [B, H, W, C] behind a [B, C, H, W]."""
    node = None if value is None else value.producer()
    if is_op(node, "Transpose") and list(attribute(node, "perm") or ()) == _TO_SECOND:
        return node.inputs[0]
    return None


def _push(editor: Editor, node: ir.Node) -> bool:
    """Carries out `node` on [B, H, W, C] if that is what its inputs were; turns its outputs."""
    sources = [_from_last(value) for value in node.inputs]
    if not any(sources) or any(len(dims_of(out) or ()) != 4 for out in node.outputs):
        return False
    attributes = {name: attr.value for name, attr in node.attributes.items()}
    is_pointwise = is_op(node, *_POINTWISE) or node.domain == INTERNAL
    if is_pointwise:
        others = [v for v, s in zip(node.inputs, sources, strict=True) if v is not None and not s]
        if sum(map(_is_full_image, others)) > sum(source is not None for source in sources):
            return False
        inputs = [
            source or _turned(editor, node, value)
            for value, source in zip(node.inputs, sources, strict=True)
        ]
    elif is_op(node, "Concat") and sum(map(bool, sources)) * 2 >= len(sources):
        axis = attribute(node, "axis") % 4
        attributes["axis"] = _TO_LAST.index(axis)
        inputs = [
            source or _turned(editor, node, value)
            for value, source in zip(node.inputs, sources, strict=True)
        ]
    elif is_op(node, "Split") and sources[0] is not None:
        attributes["axis"] = _TO_LAST.index(attribute(node, "axis", 0) % 4)
        inputs = [sources[0], *node.inputs[1:]]
    elif is_op(node, "Slice") and sources[0] is not None and len(node.inputs) > 3:
        axes = content_of(node.inputs[3])
        if axes is None or constant(node.inputs[3]) is None:
            return False
        turned = np.array([_TO_LAST.index(axis % 4) for axis in axes.reshape(-1)], np.int64)
        inputs = [sources[0], *node.inputs[1:3], editor.store(turned, "axes"), *node.inputs[4:]]
    else:
        return False
    if any(value is None for value in inputs):
        return False
    made = editor.add(node, node.op_type, inputs, attributes, node.domain, len(node.outputs))
    for old, new in zip(node.outputs, made.outputs, strict=True):
        if node.domain == INTERNAL:
            new.meta["dims"] = dims_of(inputs[0])
        new.type = old.type
        editor.replace(old, editor.op(node, "Transpose", new, perm=_TO_SECOND))
    return True


def _is_full_image(value: ir.Value) -> bool:
    dims = dims_of(value) or ()
    return len(dims) == 4 and constant(value) is None and dims[2:] != (1, 1)


def _turned(editor: Editor, before: ir.Node, value: ir.Value | None) -> ir.Value | None:
    """An operand of [B, C, H, W] as one of [B, H, W, C]."""
    dims = dims_of(value)
    if value is None or dims is None or len(dims) > 4:
        return None
    if not dims or (len(dims) == 1 and dims[0] == 1):
        return value
    tensor = constant(value)
    if tensor is not None and tensor.size <= 1 << 16:
        array = tensor.numpy()
        array = array.reshape((1,) * (4 - array.ndim) + array.shape).transpose(_TO_LAST)
        return editor.store(np.ascontiguousarray(array), "turned")
    if len(dims) < 4:
        axes = editor.store(np.arange(4 - len(dims), dtype=np.int64), "axes")
        value = editor.op(before, "Unsqueeze", value, axes)
    result: ir.Value = editor.op(before, "Transpose", value, perm=_TO_LAST)
    return result


# --- chains


def _join_chains(editor: Editor) -> bool:
    """Makes one Reshape, one Transpose or nothing of a chain, where that moves elements alike."""
    writer = SizeWriter(editor)
    changed = False
    for node in tuple(editor.graph):
        if node.graph is None or not is_op(node, "Transpose", "Reshape", "Unsqueeze", "Squeeze"):
            continue
        end = node.outputs[0]
        readers = users(end)
        if readers and all(is_op(reader, "Transpose", "Reshape") for reader in readers):
            continue  # inside of a longer chain
        changed |= _join(editor, writer, node, end)
    editor.prune()
    return changed


def _join(editor: Editor, writer: SizeWriter, node: ir.Node, end: ir.Value) -> bool:
    dims = dims_of(end)
    if dims is None:
        return False
    best: ir.Value | None = None
    for chain in chains_to(end):
        if len(chain.nodes) < 1 or (len(chain.nodes) == 1 and node.op_type != "Transpose"):
            continue
        source_dims = dims_of(chain.source)
        if source_dims is not None and same_order(chain, [("reshape", dims)]):
            joined = writer.reshape(node, chain.source, dims)
            best = joined if joined is not None else best
            continue
        order = _single_transpose(chain.source, end) if len(chain.nodes) > 1 else None
        if order is not None and same_order(chain, [("transpose", order)]):
            best = editor.op(node, "Transpose", chain.source, perm=order)
    if best is None:
        return False
    editor.replace(end, best)
    return True


def _single_transpose(source: ir.Value, end: ir.Value) -> list[int] | None:
    """An order of axes that gives the sizes of `end`, when the sizes leave no choice."""
    before, after = dims_of(source), dims_of(end)
    if before is None or after is None or len(before) != len(after):
        return None
    if len(set(before)) != len(before) or set(before) != set(after):
        return None
    return [before.index(size) for size in after]
