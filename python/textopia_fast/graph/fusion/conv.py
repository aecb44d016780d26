"""Convolutions 1x1 and 3x3: stride 1 and 2, one-sided padding, nearest upsampling before them."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ..edit import (
    Editor,
    attribute,
    constant,
    content_of,
    dims_of,
    input_of,
    is_op,
    producer,
    scalar,
    small_array,
    stored_sizes,
)
from ..weights import derived

__all__ = ["fuse"]

_TO_LAST, _TO_SECOND = [0, 2, 3, 1], [0, 3, 1, 2]


def fuse(editor: Editor) -> None:
    """Finds convolutions; each reads and gives [B, H, W, C] between two Transposes."""
    for node in tuple(editor.graph):
        if is_op(node, "Conv"):
            _conv(editor, node)
    editor.prune()


def _conv(editor: Editor, node: ir.Node) -> None:
    weight, x = constant(node.inputs[1]), node.inputs[0]
    bias = small_array(input_of(node, 2))
    if weight is None or len(weight.shape) != 4 or (bias is None and input_of(node, 2) is not None):
        return
    if attribute(node, "group", 1) != 1 or attribute(node, "auto_pad", "NOTSET") != "NOTSET":
        return
    rows, channels, kernel, kernel_width = stored_sizes(weight)
    strides = attribute(node, "strides") or [1, 1]
    pads = list(attribute(node, "pads") or [0, 0, 0, 0])
    if kernel != kernel_width or kernel not in (1, 3) or strides[0] != strides[1]:
        return
    if strides[0] not in (1, 2) or list(attribute(node, "dilations") or [1, 1]) != [1, 1]:
        return
    is_one_sided, upsample = False, False
    if kernel == 3 and strides[0] == 2 and pads == [0, 0, 0, 0]:
        padded = _padded_right(producer(x, "Pad"))
        if padded is None:
            return
        x, is_one_sided = padded, True
    elif kernel == 3 and strides[0] == 2 and pads == [0, 0, 1, 1]:
        is_one_sided = True
    elif pads != [kernel // 2] * 4:
        return
    elif kernel == 3 and strides[0] == 1:
        smaller = _upsampled(producer(x, "Resize", "Upsample"))
        if smaller is not None:
            x, upsample = smaller, True
    if dims_of(x) is None:
        return
    plain = derived(
        [weight],
        (rows, kernel, kernel, channels),
        lambda w: w.astype(np.float32).transpose(0, 2, 3, 1),
    )
    fused = editor.fused(
        node,
        "Conv",
        editor.op(node, "Transpose", x, perm=_TO_LAST),
        editor.store(plain, "weight"),
        None if bias is None else editor.store(bias.astype(np.float32), "bias"),
        kernel=kernel,
        stride=strides[0],
        upsample=int(upsample),
        asymmetric_pad=int(is_one_sided),
        in_channels=channels,
        out_channels=rows,
        activation="",
        weight_format="plain",
    )
    editor.replace(node.outputs[0], editor.op(node, "Transpose", fused, perm=_TO_SECOND))


def _padded_right(node: ir.Node | None) -> ir.Value | None:
    """The image to which a Pad adds one column of zeros on the right and one row at the bottom."""
    if node is None or attribute(node, "mode", "constant") != "constant":
        return None
    pads = attribute(node, "pads")
    if pads is None:
        content = content_of(input_of(node, 1))
        pads = None if content is None else content.tolist()
    value, axes = input_of(node, 2), input_of(node, 3)
    is_zero = value is None or scalar(value) == 0.0
    is_right = pads is not None and list(pads) == [0, 0, 0, 0, 0, 0, 1, 1] and axes is None
    return node.inputs[0] if is_right and is_zero else None


def _upsampled(node: ir.Node | None) -> ir.Value | None:
    """The image that a Resize makes twice as high and wide, each pixel four times."""
    if node is None or attribute(node, "mode", "nearest") != "nearest":
        return None
    before, after = dims_of(node.inputs[0]), dims_of(node.outputs[0])
    if before is None or after is None or len(before) != 4:
        return None
    if after != (before[0], before[1], before[2] * 2, before[3] * 2):
        return None
    if node.op_type == "Resize":
        place = attribute(node, "coordinate_transformation_mode", "half_pixel")
        rounding = attribute(node, "nearest_mode", "round_prefer_floor")
        halves = place in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric")
        if not (place == "asymmetric" and rounding == "floor") and not (
            halves and rounding in ("round_prefer_floor", "round_prefer_ceil")
        ):
            return None
    return node.inputs[0]
