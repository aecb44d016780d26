"""Weights in the form that a target's kernels read: narrowed, or packed into panels."""

from __future__ import annotations

from collections.abc import Callable, Collection

import ml_dtypes
import numpy as np
import onnx_ir as ir

from .. import _core
from ..errors import ConfigurationError
from .edit import DOMAIN, Editor, attribute, constant, stored_sizes
from .quantising import zero_point_of
from .weights import derived

__all__ = ["pack_weights", "panel_count"]

_WEIGHTED = ("Conv", "Linear", "LinearGeglu")
_NUMPY = {ir.DataType.BFLOAT16: ml_dtypes.bfloat16, ir.DataType.FLOAT16: np.float16}


def pack_weights(
    editor: Editor,
    weight_format: str,
    dtype: ir.DataType,
    in_int8: Collection[ir.Node] = (),
) -> None:
    """Replaces the weights of all fused operators; each is converted when it is written.

    Args:
        editor: The graph.
        weight_format: "plain" (values of `dtype`) or "bf16_panels".
        dtype: Element type of activations.
        in_int8: Nodes whose weights become "int8_panels" instead.

    Raises:
        ConfigurationError: The core has no packing of this kind.
    """
    for node in tuple(editor.graph):
        if node.domain != DOMAIN or node.op_type not in _WEIGHTED:
            continue
        plain = constant(node.inputs[1])
        if plain is None or attribute(node, "weight_format") != "plain":
            continue
        own_format = "int8_panels" if node in in_int8 else weight_format
        if own_format in ("bf16_panels", "int8_panels"):
            packed = _panels(node, plain, own_format == "int8_panels")
        elif dtype in _NUMPY:
            narrow = _NUMPY[dtype]
            packed = derived([plain], stored_sizes(plain), lambda w, to=narrow: w.astype(to), dtype)
        else:
            continue
        node.replace_input_with(1, editor.store(packed, "packed"))
        node.attributes["weight_format"] = ir.AttrString("weight_format", own_format)
        if own_format == "int8_panels":
            node.attributes["zero_point"] = ir.AttrInt64("zero_point", zero_point_of(node))
    editor.prune()


def panel_count(
    rows: int, channels: int, taps: int, is_int8: bool = False, kernels: int = 1
) -> int:
    """Elements of a packed weight: rows fill panels of 32, channels blocks of 32, or 64 in int8.

    Each int8 panel of each of the `kernels` ends with 32 scales and 32 sums of 4 bytes.
    """
    panels, block = -(-rows // 32), 64 if is_int8 else 32
    numbers = panels * 32 * -(-channels // block) * block * taps
    return kernels * (numbers + (panels * 256 if is_int8 else 0))


def _panels(node: ir.Node, plain: ir.TensorProtocol, is_int8: bool) -> ir.LazyTensor:
    dtype = ir.DataType.UINT8 if is_int8 else ir.DataType.UINT16
    if node.op_type == "Conv":
        upsample = bool(attribute(node, "upsample"))
        kernel = attribute(node, "kernel")
        taps, kernels = (4, 4) if upsample else (kernel * kernel, 1)
        rows, channels = attribute(node, "out_channels"), attribute(node, "in_channels")
        conv = _packer("pack_conv")
        count = panel_count(rows, channels, taps, is_int8, kernels)
        return _packed(plain, count, lambda w: conv(w, upsample=upsample, int8=is_int8), dtype)
    is_gated = node.op_type == "LinearGeglu"
    rows = stored_sizes(plain)[0]
    linear = _packer("pack_linear")
    if is_gated:  # a panel holds 16 values and their 16 gates
        rows = 2 * (-(-rows // 2 // 16) * 16)
    count = panel_count(rows, attribute(node, "in_features"), 1, is_int8)
    return _packed(plain, count, lambda w: linear(w, geglu=is_gated, int8=is_int8), dtype)


def _packer(name: str) -> Callable[..., np.ndarray]:
    found = getattr(_core, name, None)
    if found is None:
        raise ConfigurationError(f"engine: the core of this installation has no {name}.")
    packer: Callable[..., np.ndarray] = found
    return packer


def _packed(
    plain: ir.TensorProtocol,
    count: int,
    pack: Callable[[np.ndarray], np.ndarray],
    dtype: ir.DataType,
) -> ir.LazyTensor:
    def checked(weight: np.ndarray) -> np.ndarray:
        packed = np.asarray(pack(np.ascontiguousarray(weight, np.float32))).reshape(-1)
        if packed.size != count:
            raise ConfigurationError(
                f"engine: a packed weight has {packed.size:,} numbers, expected are {count:,}."
            )
        return packed

    return derived([plain], (count,), checked, dtype)
