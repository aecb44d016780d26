"""Attention: softmax(scale * Q K^T + mask) V with heads split off by reshapes, or the operator."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from ..dims import Dims
from ..edit import Editor, attribute, dims_of, input_of, is_op, only_user, present, scalar, users
from ..movement import chains_to, same_order
from ..sizes import SizeWriter
from .side_by_side import pack_shared

__all__ = ["fuse"]


@dataclass(frozen=True)
class _Heads:
    """Tokens [B, S, heads * width] from which an operand of attention was made."""

    tokens: ir.Value
    heads: int
    width: int


def fuse(editor: Editor) -> None:
    """Finds attention, then lets linear layers that feed only one of them compute side by side."""
    writer = SizeWriter(editor)
    for node in tuple(editor.graph):
        if is_op(node, "Softmax"):
            _decomposed(editor, writer, node)
        elif is_op(node, "Attention"):
            _operator(editor, writer, node)
    editor.prune()
    for node in tuple(editor.graph):
        if is_op(node, "Attention", domain="ai.textopia"):
            _pack(editor, node)
    editor.prune()


def _decomposed(editor: Editor, writer: SizeWriter, softmax: ir.Node) -> None:
    logits_dims = dims_of(softmax.inputs[0])
    if logits_dims is None or attribute(softmax, "axis", -1) not in (-1, len(logits_dims) - 1):
        return
    weighted = only_user(softmax.outputs[0], "MatMul")
    if weighted is None or weighted.inputs[0] is not softmax.outputs[0]:
        return
    value: ir.Value | None = softmax.inputs[0]
    scale, mask = 1.0, None
    while True:
        node = None if value is None else value.producer()
        if is_op(node, "MatMul"):
            break
        factor, rest = _scaled(node)
        if rest is not None:
            scale, value = scale * factor, rest
        elif is_op(node, "Add") and mask is None and scale == 1.0:
            made_by_product = [_leads_to_product(v) for v in node.inputs]
            if sum(made_by_product) != 1:
                return
            index = made_by_product.index(True)
            value, mask = node.inputs[index], node.inputs[1 - index]
        else:
            return
    node = present(node)
    q, k, v = node.inputs[0], node.inputs[1], weighted.inputs[1]
    q_factor, q = _without_scale(q)
    k_factor, k = _without_scale(k)
    _put(
        editor,
        writer,
        weighted,
        (_split_heads(q), _split_heads(k, is_transposed=True), _split_heads(v)),
        mask,
        scale * q_factor * k_factor,
        weighted.outputs[0],
    )


def _scaled(node: ir.Node | None) -> tuple[float, ir.Value | None]:
    """(factor, operand) of a product with a number, or (1, None)."""
    if is_op(node, "Mul"):
        for index in (0, 1):
            factor = scalar(node.inputs[index])
            if factor is not None:
                return factor, node.inputs[1 - index]
    if is_op(node, "Div"):
        factor = scalar(node.inputs[1])
        if factor:
            return 1.0 / factor, node.inputs[0]
    return 1.0, None


def _leads_to_product(value: ir.Value | None) -> bool:
    node = None if value is None else value.producer()
    rest = value
    while rest is not None and not is_op(node, "MatMul"):
        _, rest = _scaled(node)
        node = None if rest is None else rest.producer()
    return is_op(node, "MatMul")


def _without_scale(value: ir.Value | None) -> tuple[float, ir.Value | None]:
    """Takes a factor off; it may stand before the heads are split as well as after."""
    node = None if value is None else value.producer()
    factor, rest = _scaled(node)
    return (factor, rest) if rest is not None else (1.0, value)


def _split_heads(value: ir.Value | None, is_transposed: bool = False) -> _Heads | None:
    """The tokens of an operand [B, heads, S, D] or [B * heads, S, D] (or with S and D swapped)."""
    dims = dims_of(value)
    if value is None or dims is None or len(dims) not in (3, 4):
        return None
    width = dims[-2] if is_transposed else dims[-1]
    found = None
    for chain in chains_to(value):
        tokens = dims_of(chain.source)
        if tokens is None or len(tokens) != 3 or not isinstance(width, int):
            continue
        if not isinstance(tokens[2], int) or tokens[2] % width:
            continue
        heads = tokens[2] // width
        steps: list[tuple[str, Dims | tuple[int, ...]]] = [
            ("reshape", (tokens[0], tokens[1], heads, width)),
            ("transpose", (0, 2, 3, 1) if is_transposed else (0, 2, 1, 3)),
            ("reshape", dims),
        ]
        if same_order(chain, steps):
            # The farthest counts: nearer ones may have the heads among the batch already.
            found = _Heads(chain.source, heads, width)
    return found


def _operator(editor: Editor, writer: SizeWriter, node: ir.Node) -> None:
    """The operator of set 23 with four axes. With three, runtimes do not agree what it means."""
    is_plain = not any(
        attribute(node, name) for name in ("softcap", "qk_matmul_output_mode", "is_causal")
    )
    if not is_plain or len(node.inputs) > 4 or any(out.uses() for out in node.outputs[1:]):
        return
    dims = dims_of(node.inputs[0])
    if dims is None or len(dims) != 4 or not isinstance(dims[3], int):
        return
    heads = tuple(_split_heads(value) for value in node.inputs[:3])
    scale = attribute(node, "scale") or 1.0 / math.sqrt(dims[3])
    mask = input_of(node, 3)
    if mask is not None and mask.dtype != ir.DataType.FLOAT:
        return
    _put(editor, writer, node, heads, mask, scale, node.outputs[0])


def _put(
    editor: Editor,
    writer: SizeWriter,
    before: ir.Node,
    operands: tuple[_Heads | None, ...],
    mask: ir.Value | None,
    scale: float,
    result: ir.Value,
) -> None:
    q, k, v = operands
    if q is None or k is None or v is None:
        return
    if not (q.heads == k.heads == v.heads and q.width == k.width == v.width):
        return
    q_dims, out_dims = dims_of(q.tokens), dims_of(result)
    if q_dims is None or out_dims is None:
        return
    k_dims = dims_of(k.tokens) or ()
    if k_dims[:2] != (dims_of(v.tokens) or ())[:2] or k_dims[0] != q_dims[0]:
        return
    if mask is not None:
        mask = _fitting_mask(editor, before, mask, q_dims, k_dims)
        if mask is None:
            return
    is_usual = math.isclose(scale, 1.0 / math.sqrt(q.width), rel_tol=1e-3)
    fused = editor.fused(
        before,
        "Attention",
        q.tokens,
        k.tokens,
        v.tokens,
        mask,
        heads=q.heads,
        scale=0.0 if is_usual else float(scale),
        causal=0,
    )
    joined = _joined_heads(result, q)
    if joined is not None:
        editor.replace(joined, fused)
        return
    # Somebody reads the heads apart: give them as the graph had them.
    before = users(result)[0] if users(result) else before
    split: ir.Value | None = writer.reshape(before, fused, (*q_dims[:2], q.heads, q.width))
    if split is not None:
        split = editor.op(before, "Transpose", split, perm=[0, 2, 1, 3])
        split = writer.reshape(before, split, out_dims)
    if split is not None:
        editor.replace(result, split)


def _joined_heads(result: ir.Value, q: _Heads) -> ir.Value | None:
    """Where the heads stand side by side again: what Transpose and Reshape make of `result`."""
    value = result
    for _ in range(4):
        node = only_user(value, "Reshape", "Transpose", "Unsqueeze", "Squeeze")
        if node is None or node.inputs[0] is not value:
            return None
        value = node.outputs[0]
        dims, q_dims = dims_of(value), dims_of(q.tokens)
        if dims is None or q_dims is None or len(dims) != 3:
            continue
        steps: list[tuple[str, Dims | tuple[int, ...]]] = [
            ("reshape", (q_dims[0], q.heads, q_dims[1], q.width)),
            ("transpose", (0, 2, 1, 3)),
            ("reshape", (q_dims[0], q_dims[1], q.heads * q.width)),
        ]
        for chain in chains_to(value):
            if chain.source is result:
                return value if same_order(chain, steps) else None
    return None


def _fitting_mask(
    editor: Editor, before: ir.Node, mask: ir.Value, q_dims: Dims, k_dims: Dims
) -> ir.Value | None:
    """The mask as [B or 1, 1, Sq or 1, Sk]; None where it is not the same for all heads."""
    dims = dims_of(mask)
    if dims is None or not 1 <= len(dims) <= 4:
        return None
    padded: Dims = (1,) * (4 - len(dims)) + dims
    fits = padded[0] in (1, q_dims[0]) and padded[1] == 1 and padded[2] in (1, q_dims[1])
    if not fits or padded[3] != k_dims[1]:
        return None
    if len(dims) == 4:
        return mask
    axes = editor.store(np.arange(4 - len(dims), dtype=np.int64), "axes")
    result: ir.Value = editor.op(before, "Unsqueeze", mask, axes)
    return result


def _pack(editor: Editor, node: ir.Node) -> None:
    """Projections of one value by one matrix: Q, K, V of self-attention, K, V of the prompt."""
    for count in (3, 2):
        taken = node.inputs[3 - count : 3]
        layers = [value.producer() for value in taken if value is not None]
        if len(layers) != count or None in layers:
            continue
        packed = pack_shared(editor, node, [layer for layer in layers if layer is not None])
        if packed is None:
            continue
        node.replace_input_with(3 - count, packed)
        for index in range(4 - count, 3):
            node.replace_input_with(index, None)
        return
