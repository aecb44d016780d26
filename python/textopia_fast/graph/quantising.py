"""Which layers of a U-Net's body are computed in int8, and why the others are not.

A layer stays in bfloat16 where int8 would cost most or win nothing. Nothing is measured on
pictures: what is known of a layer is its place, its sizes and its weights.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from .coverage import flops_of
from .edit import DOMAIN, attribute, constant, input_of, is_op
from .weights import float32

__all__ = ["Int8Plan", "plan_int8", "zero_point_of"]

_LAYERS = ("Conv", "Linear", "LinearGeglu")
_RESIDUAL = {"Conv": 4, "Linear": 3}
# A panel has 32 columns and a step 64 channels: below that most of what is multiplied is padding,
# and the first and the last convolution of a network, which meet the latents, are among these.
_FEWEST_CHANNELS = 32
# Products summed into one result; each result is scaled once, and each input rounded once.
_SHORTEST_SUM = 128
# csrc/cpu/panels.h: what an int32 holds.
_LONGEST_SUM = (1 << 31) // (255 * 127)
# Gaussian weights lose 0.9 % (a step is 3.5 to 4 deviations / 127); more means outliers.
_MOST_LOST = 0.02

# SiLU gives no number below -0.2785: bytes are better spent on the other side. With 24 steps below
# zero and 231 above it, the step is smaller than with 127 on each for all inputs that reach 1.5.
_SILU_ZERO_POINT = 24
_ZERO_POINT = 128
_MOVES = ("Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


@dataclass(frozen=True)
class Int8Plan:
    """What of one graph is computed in int8.

    Attributes:
        chosen: Layers in int8.
        kept: How many layers stay in bfloat16, by reason.
        share: The part of the arithmetic of all layers that is in int8, 0 to 1.
    """

    chosen: frozenset[ir.Node]
    kept: Mapping[str, int]
    share: float

    def facts(self) -> dict[str, Any]:
        """For an engine's manifest."""
        return {"layers": len(self.chosen), "share": self.share, "kept": dict(self.kept)}


def plan_int8(graph: ir.Graph, sizes: Mapping[str, int]) -> Int8Plan:
    """Chooses the layers of a fused graph whose weights are still plain. Reads the weights.

    Args:
        graph: The body of a U-Net.
        sizes: Free sizes at which the arithmetic is counted, by name.
    """
    chosen: set[ir.Node] = set()
    kept: Counter[str] = Counter()
    amounts = {True: 0.0, False: 0.0}
    for node in graph:
        if node.domain != DOMAIN or node.op_type not in _LAYERS:
            continue
        reason = _reason(node)
        if reason:
            kept[f"{node.op_type}: {reason}"] += 1
        else:
            chosen.add(node)
        amounts[not reason] += flops_of(node, sizes) or 0.0
    total = sum(amounts.values())
    return Int8Plan(frozenset(chosen), kept, amounts[True] / total if total else 0.0)


def zero_point_of(node: ir.Node) -> int:
    """The byte that stands for zero in the activations of a layer.

    It is the same for all images and steps: the border of an image is made of it.
    """
    value = input_of(node, 0)
    maker = None if value is None else value.producer()
    while is_op(maker, *_MOVES) and maker.inputs[0] is not None:
        maker = maker.inputs[0].producer()
    is_silu = (
        maker is not None
        and maker.domain == DOMAIN
        and attribute(maker, "activation") == "silu"
        and input_of(maker, _RESIDUAL.get(maker.op_type, 99)) is None
    )
    return _SILU_ZERO_POINT if is_silu else _ZERO_POINT


def _reason(node: ir.Node) -> str:
    """Why a layer stays as it is; empty where it does not."""
    weight = constant(node.inputs[1])
    if weight is None:
        return "its weight is computed"
    is_conv = node.op_type == "Conv"
    channels = attribute(node, "in_channels" if is_conv else "in_features")
    columns = attribute(node, "out_channels" if is_conv else "out_features")
    taps = attribute(node, "kernel") ** 2 if is_conv else 1
    if min(channels, columns) < _FEWEST_CHANNELS:
        return f"fewer than {_FEWEST_CHANNELS} channels"
    if channels * taps < _SHORTEST_SUM:
        return f"sums of fewer than {_SHORTEST_SUM} products"
    if channels * taps > _LONGEST_SUM:
        return "sums that an int32 does not hold"
    if not _lost(float32(weight).numpy()) <= _MOST_LOST:  # NaN too
        return f"rounding changes its weights by more than {_MOST_LOST:.0%}"
    return ""


def _lost(weight: np.ndarray) -> float:
    """Relative L2 error of a weight [N, ...] in int8 with a scale for each row."""
    if not np.isfinite(weight).all():
        return math.nan
    lost, whole = 0.0, 0.0
    for row in weight.reshape(len(weight), -1):
        row = row.astype(np.float64)  # one at a time: a weight is large
        step = np.abs(row).max() / 127
        lost += np.square(np.rint(row / step) * step - row).sum() if step > 0 else 0.0
        whole += np.square(row).sum()
    return math.sqrt(lost / whole) if whole else 0.0
