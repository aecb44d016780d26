"""Weights in the form that a target's kernels read: narrowed, or packed into panels."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx_ir as ir

from .. import _core
from ..errors import ConfigurationError
from .edit import DOMAIN, Editor, attribute, constant, stored_sizes
from .weights import derived

__all__ = ["pack_weights", "panel_count"]

_WEIGHTED = ("Conv", "Linear", "LinearGeglu")
_NUMPY = {ir.DataType.BFLOAT16: ml_dtypes.bfloat16, ir.DataType.FLOAT16: np.float16}


def pack_weights(editor: Editor, weight_format: str, dtype: ir.DataType) -> None:
    """Replaces the weights of all fused operators; each is converted when it is written.

    Args:
        editor: The graph.
        weight_format: "plain" (values of `dtype`) or "bf16_panels".
        dtype: Element type of activations.

    Raises:
        ConfigurationError: The core has no packing of this kind.
    """
    for node in tuple(editor.graph):
        if node.domain != DOMAIN or node.op_type not in _WEIGHTED:
            continue
        plain = constant(node.inputs[1])
        if plain is None or attribute(node, "weight_format") != "plain":
            continue
        if weight_format == "bf16_panels":
            packed = _panels(node, plain)
        elif dtype in _NUMPY:
            narrow = _NUMPY[dtype]
            packed = derived([plain], stored_sizes(plain), lambda w, to=narrow: w.astype(to), dtype)
        else:
            continue
        node.replace_input_with(1, editor.store(packed, "packed"))
        node.attributes["weight_format"] = ir.AttrString("weight_format", weight_format)
    editor.prune()


def panel_count(rows: int, channels: int, taps: int) -> int:
    """Numbers in a packed weight: rows and channels fill whole blocks of 32."""
    return -(-rows // 32) * 32 * -(-channels // 32) * 32 * taps


def _panels(node: ir.Node, plain: ir.TensorProtocol) -> ir.LazyTensor:
    if node.op_type == "Conv":
        upsample = bool(attribute(node, "upsample"))
        kernel = attribute(node, "kernel")
        taps = 16 if upsample else kernel * kernel
        rows, channels = attribute(node, "out_channels"), attribute(node, "in_channels")
        conv = _packer("pack_conv")
        return _packed(
            plain, panel_count(rows, channels, taps), lambda w: conv(w, upsample=upsample)
        )
    is_gated = node.op_type == "LinearGeglu"
    rows = stored_sizes(plain)[0]
    linear = _packer("pack_linear")
    count = panel_count(rows, attribute(node, "in_features"), 1)
    if is_gated:  # a panel holds 16 values and their 16 gates
        count = panel_count(2 * (-(-rows // 2 // 16) * 16), attribute(node, "in_features"), 1)
    return _packed(plain, count, lambda w: linear(w, geglu=is_gated))


def _packer(name: str) -> Callable[..., np.ndarray]:
    found = getattr(_core, name, None)
    if found is None:
        raise ConfigurationError(f"engine: the core of this installation has no {name}.")
    packer: Callable[..., np.ndarray] = found
    return packer


def _packed(
    plain: ir.TensorProtocol, count: int, pack: Callable[[np.ndarray], np.ndarray]
) -> ir.LazyTensor:
    def checked(weight: np.ndarray) -> np.ndarray:
        packed = np.asarray(pack(np.ascontiguousarray(weight, np.float32))).reshape(-1)
        if packed.size != count:
            raise ConfigurationError(
                f"engine: a packed weight has {packed.size:,} numbers, expected are {count:,}."
            )
        return packed.view(np.uint16)

    return derived([plain], (count,), checked, ir.DataType.UINT16)
