"""GroupNorm, as exporters write it: around InstanceNormalization, or as GroupNormalization."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..dims import Dims
from ..edit import Editor, attribute, dims_of, is_op, only_user, producer, small_array

__all__ = ["fuse"]


def fuse(editor: Editor) -> None:
    """Finds group norms of images [B, C, H, W] and sequences [B, C, S]."""
    for node in tuple(editor.graph):
        if is_op(node, "InstanceNormalization"):
            _instance(editor, node)
        elif is_op(node, "GroupNormalization"):
            _group(editor, node)
    editor.prune()


def _instance(editor: Editor, node: ir.Node) -> None:
    """Reshape to [B, G, N], InstanceNormalization, Reshape back, times gamma, plus beta."""
    into = producer(node.inputs[0], "Reshape")
    back = only_user(node.outputs[0], "Reshape")
    scale, shift = small_array(node.inputs[1]), small_array(node.inputs[2])
    if into is None or back is None or scale is None or shift is None:
        return
    source, dims = into.inputs[0], dims_of(into.inputs[0])
    grouped = dims_of(node.inputs[0])
    if dims is None or grouped is None or dims_of(back.outputs[0]) != dims or len(grouped) != 3:
        return
    groups = grouped[1]
    if not isinstance(groups, int) or grouped[0] != dims[0] or scale.size != groups:
        return
    epsilon = attribute(node, "epsilon", 1e-5)
    _put(editor, back, source, back.outputs[0], groups, epsilon, scale, shift)


def _group(editor: Editor, node: ir.Node) -> None:
    scale, shift = small_array(node.inputs[1]), small_array(node.inputs[2])
    groups = attribute(node, "num_groups")
    if scale is None or shift is None or attribute(node, "activation"):
        return
    epsilon = attribute(node, "epsilon", 1e-5)
    _put(editor, node, node.inputs[0], node.outputs[0], groups, epsilon, scale, shift)


def _put(
    editor: Editor,
    before: ir.Node,
    x: ir.Value | None,
    result: ir.Value,
    groups: int,
    epsilon: float,
    scale: np.ndarray,
    shift: np.ndarray,
) -> None:
    dims = dims_of(x)
    if dims is None or len(dims) not in (3, 4) or not isinstance(dims[1], int):
        return
    channels = dims[1]
    if groups < 1 or channels % groups or {scale.size, shift.size} - {groups, channels}:
        return
    # One pair of numbers per group, up to operator set 20, or per channel.
    gamma, beta = (np.repeat(v, channels // v.size).astype(np.float32) for v in (scale, shift))
    for op_type in ("Mul", "Add"):
        follower = only_user(result, op_type)
        factor = None if follower is None else _per_channel(follower, result, dims)
        if follower is None or factor is None:
            continue
        if op_type == "Mul":
            gamma, beta = gamma * factor, beta * factor
        else:
            beta = beta + factor
        before, result = follower, follower.outputs[0]
    to_last, to_second = ([0, 2, 3, 1], [0, 3, 1, 2]) if len(dims) == 4 else ([0, 2, 1],) * 2
    fused = editor.fused(
        before,
        "GroupNorm",
        editor.op(before, "Transpose", x, perm=to_last),
        editor.store(gamma, "gamma"),
        editor.store(beta, "beta"),
        groups=groups,
        epsilon=float(epsilon),
        activation="",
    )
    editor.replace(result, editor.op(before, "Transpose", fused, perm=to_second))


def _per_channel(node: ir.Node, value: ir.Value, dims: Dims) -> np.ndarray | None:
    """The stored operand of `node` beside `value`, one number per channel."""
    other = node.inputs[1] if node.inputs[0] is value else node.inputs[0]
    array = small_array(other)
    if array is None or array.ndim > len(dims):
        return None
    shape = (1,) * (len(dims) - array.ndim) + array.shape
    if shape[1] not in (1, dims[1]) or any(n != 1 for axis, n in enumerate(shape) if axis != 1):
        return None
    return np.broadcast_to(array.reshape(-1), (int(str(dims[1])),)).astype(np.float32)
