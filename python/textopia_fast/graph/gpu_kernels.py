"""What the GPU kernels take: the shape classes that kernels/manifest.py compiles."""

from __future__ import annotations

import onnx_ir as ir

from .edit import attribute, constant, dims_of, input_of, present, stored_sizes

__all__ = [
    "CAUSAL_HEAD_WIDTHS",
    "HEAD_WIDTHS",
    "MASKED_HEAD_WIDTHS",
    "MAX_GROUP",
    "MAX_NORM",
    "lacking_kernel",
]

HEAD_WIDTHS: tuple[int, ...] = (16, 24, 32, 40, 64, 80, 160, 512)
MASKED_HEAD_WIDTHS: tuple[int, ...] = (32, 64)
CAUSAL_HEAD_WIDTHS: tuple[int, ...] = (64,)
MAX_GROUP = 128  # channels of a group
MAX_NORM = 2048  # channels of a layer norm
_ALIGNED = 16  # rows of tokens are multiples of it


def lacking_kernel(node: ir.Node) -> str | None:
    """Why no kernel takes this fused operator; None where one does."""
    if node.op_type == "Attention":
        return _attention(node)
    channels = stored_sizes(present(constant(node.inputs[1])))[0] if len(node.inputs) > 1 else 0
    if node.op_type == "LayerNorm" and channels > MAX_NORM:
        return f"{channels} channels, kernels are for up to {MAX_NORM}"
    if node.op_type == "GroupNorm" and channels // attribute(node, "groups") > MAX_GROUP:
        width = channels // attribute(node, "groups")
        return f"{width} channels in a group, kernels are for up to {MAX_GROUP}"
    return None


def _attention(node: ir.Node) -> str | None:
    heads, dims = attribute(node, "heads"), dims_of(node.outputs[0])
    channels = dims[-1] if dims is not None else None
    if not isinstance(channels, int):
        return "its head width is not known"
    width, kind, widths = channels // heads, "", HEAD_WIDTHS
    if input_of(node, 3) is not None:
        kind, widths = " with a mask", MASKED_HEAD_WIDTHS
    if attribute(node, "causal", 0):
        if kind:
            return "causal and with a mask"
        kind, widths = " and causal", CAUSAL_HEAD_WIDTHS
    if width not in widths:
        return f"head width {width}{kind}, kernels are for {', '.join(map(str, widths))}"
    if channels % _ALIGNED:
        return f"{channels} channels of all heads, kernels are for multiples of {_ALIGNED}"
    return None
