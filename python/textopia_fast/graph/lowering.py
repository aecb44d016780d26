"""Lowering for CUDA: what cuDNN and cuBLAS do well becomes standard operators again.

Fused convolutions and linear layers are written as Conv and MatMul, in the target's type, with
what they had taken in: activations and residuals behind them, the time bias of a ResNet block in
the group norm that follows. Images stay [B, H, W, C]: 3x3 convolutions stand between Transposes,
which ONNX Runtime's option `prefer_nhwc` makes one operation, and 1x1 convolutions are products.
A fused operator for which there is no kernel is written out in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from .edit import (
    DOMAIN,
    Editor,
    attribute,
    constant,
    dims_of,
    input_of,
    is_op,
    only_user,
    present,
    producer,
    stored_sizes,
)
from .gpu_kernels import lacking_kernel
from .weights import derived

__all__ = ["NARROW", "lower"]

NARROW = "narrow"
"""In the `meta` of a standard node: numbers of its inputs that have the target's type."""

_TO_LAST, _TO_SECOND = [0, 2, 3, 1], [0, 3, 1, 2]
_WEIGHTED = ("Conv", "Linear", "LinearGeglu")
_INTEGERS = (ir.DataType.INT32, ir.DataType.INT64)


def lower(editor: Editor, narrow_resize: bool) -> None:
    """Lowers a graph of fused operators.

    Args:
        editor: The graph.
        narrow_resize: Whether Resize exists in the target's type.
    """
    lowering = _Lowering(editor, narrow_resize)
    for node in tuple(editor.graph):
        if node.domain == DOMAIN and node.op_type in _WEIGHTED:
            lowering.weighted(node)
    editor.prune()
    for node in tuple(editor.graph):
        if is_op(node, "ArgMax") and present(node.inputs[0]).dtype in _INTEGERS:
            # The provider compares floats alone; ids of tokens are exact in them.
            ids = editor.op(node, "Cast", node.inputs[0], to=int(ir.DataType.FLOAT))
            node.replace_input_with(0, ids)
        reason = lacking_kernel(node) if node.domain == DOMAIN else None
        if reason is not None:
            lowering.written_out(node, reason)
    _cancel_transposes(editor)
    editor.prune()


class _Lowering:
    def __init__(self, editor: Editor, narrow_resize: bool) -> None:
        self._editor = editor
        self._narrow_resize = narrow_resize

    def weighted(self, node: ir.Node) -> None:
        x, weight = present(node.inputs[0]), present(constant(node.inputs[1]))
        bias, time_bias, residual = input_of(node, 2), None, None
        if node.op_type == "Conv":
            time_bias, residual = input_of(node, 3), input_of(node, 4)
        elif node.op_type == "Linear":
            residual = input_of(node, 3)
        if node.op_type == "Conv" and (attribute(node, "kernel"), attribute(node, "stride")) != (
            1,
            1,
        ):
            y = self._conv(node, x, weight, bias)
        else:
            y = self._product(node, x, weight, bias)
        if node.op_type == "LinearGeglu":
            y = self._editor.fused(node, "Geglu", y)
        if time_bias is not None and not self._given_to_norm(node, residual, time_bias):
            axes = self._editor.store(np.array([1, 2], np.int64), "axes")
            y = self._narrow(node, "Add", y, self._editor.op(node, "Unsqueeze", time_bias, axes))
        y = self._activated(node, y, attribute(node, "activation", ""))
        if residual is not None:
            y = self._narrow(node, "Add", y, residual)
        self._editor.replace(node.outputs[0], y)

    def _narrow(
        self,
        before: ir.Node,
        op_type: str,
        *inputs: ir.Value | None,
        ports: Sequence[int] | None = None,
        **attributes: Any,
    ) -> ir.Value:
        """A standard operator that computes in the target's type."""
        node = self._editor.add(before, op_type, inputs, attributes)
        node.meta[NARROW] = tuple(range(len(inputs)) if ports is None else ports)
        return node.outputs[0]

    def _product(
        self, node: ir.Node, x: ir.Value, weight: ir.TensorProtocol, bias: ir.Value | None
    ) -> ir.Value:
        """x [..., K] times the matrix of a linear layer or of a 1x1 convolution."""
        sizes = stored_sizes(weight)
        matrix = derived(
            [weight], (sizes[-1], sizes[0]), lambda w: w.reshape(w.shape[0], w.shape[-1]).T
        )
        y = self._narrow(node, "MatMul", x, self._editor.store(matrix, "matrix"))
        return y if bias is None else self._narrow(node, "Add", y, bias)

    def _conv(
        self, node: ir.Node, x: ir.Value, weight: ir.TensorProtocol, bias: ir.Value | None
    ) -> ir.Value:
        editor, kernel, stride = self._editor, attribute(node, "kernel"), attribute(node, "stride")
        if attribute(node, "upsample"):
            x = self._upsampled(node, x)
        rows, height, width, channels = stored_sizes(weight)
        turned = derived(
            [weight], (rows, channels, height, width), lambda w: w.transpose(0, 3, 1, 2)
        )
        before = 0 if attribute(node, "asymmetric_pad") else kernel // 2
        y = self._narrow(
            node,
            "Conv",
            self._to_second(node, x),
            editor.store(turned, "weight"),
            bias,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[before, before, kernel // 2, kernel // 2],
        )
        result: ir.Value = editor.op(node, "Transpose", y, perm=_TO_LAST)
        return result

    def _to_second(self, before: ir.Node, x: ir.Value) -> ir.Value:
        result: ir.Value = self._editor.op(before, "Transpose", x, perm=_TO_SECOND)
        return result

    def _upsampled(self, before: ir.Node, x: ir.Value) -> ir.Value:
        scales = self._editor.store(np.array([1, 2, 2, 1], np.float32), "scales")
        way = {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        }
        if self._narrow_resize:
            return self._narrow(before, "Resize", x, None, scales, ports=[0], **way)
        result: ir.Value = self._editor.op(before, "Resize", x, None, scales, **way)
        return result

    def _given_to_norm(self, node: ir.Node, residual: ir.Value | None, time_bias: ir.Value) -> bool:
        """Lets the group norm after a convolution add the time bias, where there is one."""
        norm = only_user(node.outputs[0], "GroupNorm", domain=DOMAIN)
        if residual is not None or attribute(node, "activation", "") or norm is None:
            return False
        if input_of(norm, 3) is not None or lacking_kernel(norm) is not None:
            return False
        norm.resize_inputs(4)
        norm.replace_input_with(3, time_bias)
        return True

    def _activated(self, before: ir.Node, x: ir.Value, name: str) -> ir.Value:
        if name == "gelu":
            erf = self._narrow(before, "Erf", self._times(before, x, math.sqrt(0.5)))
            one = self._number(1.0)
            return self._narrow(
                before, "Mul", self._times(before, x, 0.5), self._narrow(before, "Add", erf, one)
            )
        if name in ("silu", "quick_gelu"):
            inner = x if name == "silu" else self._times(before, x, 1.702)
            return self._narrow(before, "Mul", x, self._narrow(before, "Sigmoid", inner))
        return x

    def _times(self, before: ir.Node, x: ir.Value, factor: float) -> ir.Value:
        return self._narrow(before, "Mul", x, self._number(factor))

    def _number(self, value: float) -> ir.Value:
        return self._editor.store(np.array(value, np.float32), "number")

    # --- fused operators without a kernel, in float32

    def written_out(self, node: ir.Node, reason: str) -> None:
        known = set(self._editor.graph)
        write = {
            "Attention": self._attention,
            "GroupNorm": self._group_norm,
            "LayerNorm": self._layer_norm,
        }[node.op_type]
        self._editor.replace(node.outputs[0], write(node))
        for made in self._editor.graph:
            if made not in known:
                made.meta["reason"] = reason

    def _attention(self, node: ir.Node) -> ir.Value:
        editor, heads = self._editor, attribute(node, "heads")
        channels = present(dims_of(node.outputs[0]))[-1]
        q, k, v = (input_of(node, index) for index in range(3))
        packed = [q, k, v].count(None) + 1
        if packed > 1:
            whole = k if packed == 2 else q
            sizes = editor.store(np.full(packed, channels, np.int64), "sizes")
            parts = editor.add(node, "Split", [whole, sizes], {"axis": 2}, outputs=packed).outputs
            q, k, v = (q, *parts) if packed == 2 else parts
        shape = editor.store(np.array([0, 0, heads, channels // heads], np.int64), "shape")

        def split(value: ir.Value | None, order: list[int]) -> ir.Value:
            result: ir.Value = editor.op(node, "Reshape", value, shape)
            return editor.op(node, "Transpose", result, perm=order)  # type: ignore[no-any-return]

        scale = attribute(node, "scale", 0.0) or 1.0 / math.sqrt(channels // heads)
        q = editor.op(node, "Mul", split(q, [0, 2, 1, 3]), self._number(scale))
        scores = editor.op(node, "MatMul", q, split(k, [0, 2, 3, 1]))
        if input_of(node, 3) is not None:
            scores = editor.op(node, "Add", scores, input_of(node, 3))
        shares = editor.op(node, "Softmax", scores, axis=-1)
        y = editor.op(node, "MatMul", shares, split(v, [0, 2, 1, 3]))
        y = editor.op(node, "Transpose", y, perm=[0, 2, 1, 3])
        flat = editor.store(np.array([0, 0, channels], np.int64), "shape")
        result: ir.Value = editor.op(node, "Reshape", y, flat)
        return result

    def _group_norm(self, node: ir.Node) -> ir.Value:
        editor, x, groups = self._editor, present(node.inputs[0]), attribute(node, "groups")
        rank = len(present(dims_of(x)))
        channels = stored_sizes(present(constant(node.inputs[1])))[0]
        apart = (
            [0, 0, -1, groups, channels // groups]
            if rank == 4
            else [0, -1, groups, channels // groups]
        )
        together = [0, 0, -1, channels] if rank == 4 else [0, -1, channels]
        y = editor.op(node, "Reshape", x, editor.store(np.array(apart, np.int64), "shape"))
        axes = [1, 2, 4] if rank == 4 else [1, 3]
        y = self._normal(node, y, axes, attribute(node, "epsilon"))
        y = editor.op(node, "Reshape", y, editor.store(np.array(together, np.int64), "shape"))
        y = editor.op(node, "Mul", y, node.inputs[1])
        y = editor.op(node, "Add", y, node.inputs[2])
        if attribute(node, "activation", "") == "silu":
            y = editor.op(node, "Mul", y, editor.op(node, "Sigmoid", y))
        result: ir.Value = y
        return result

    def _layer_norm(self, node: ir.Node) -> ir.Value:
        editor, rank = self._editor, len(present(dims_of(node.inputs[0])))
        y = self._normal(node, node.inputs[0], [rank - 1], attribute(node, "epsilon"))
        y = editor.op(node, "Mul", y, node.inputs[1])
        result: ir.Value = editor.op(node, "Add", y, node.inputs[2])
        return result

    def _normal(
        self, node: ir.Node, x: ir.Value | None, axes: list[int], epsilon: float
    ) -> ir.Value:
        """x to mean 0 and variance 1 along `axes`."""
        editor = self._editor
        away = editor.op(node, "Sub", x, self._mean(node, x, axes))
        square = self._mean(node, editor.op(node, "Mul", away, away), axes)
        root = editor.op(node, "Sqrt", editor.op(node, "Add", square, self._number(epsilon)))
        result: ir.Value = editor.op(node, "Div", away, root)
        return result

    def _mean(self, node: ir.Node, x: ir.Value | None, axes: list[int]) -> ir.Value:
        if self._editor.graph.opset_imports[""] < 18:
            result: ir.Value = self._editor.op(node, "ReduceMean", x, axes=axes)
        else:
            stored = self._editor.store(np.array(axes, np.int64), "axes")
            result = self._editor.op(node, "ReduceMean", x, stored)
        return result


def _cancel_transposes(editor: Editor) -> None:
    for node in tuple(editor.graph):
        if not is_op(node, "Transpose") or node.graph is None:
            continue
        before = producer(node.inputs[0], "Transpose")
        if before is None:
            continue
        orders = [list(attribute(n, "perm") or ()) for n in (before, node)]
        if sorted(map(tuple, orders)) == sorted(map(tuple, (_TO_LAST, _TO_SECOND))):
            editor.replace(node.outputs[0], present(before.inputs[0]))
