"""Patterns of exported graphs that become fused operators, one file each."""

from __future__ import annotations

from collections.abc import Callable

from ..edit import Editor
from . import activations, attention, conv, epilogues, geglu, group_norm, layer_norm, linear

__all__ = ["EARLY", "LATE"]

EARLY: tuple[Callable[[Editor], None], ...] = (
    activations.fuse,
    group_norm.fuse,
    layer_norm.fuse,
    linear.fuse,
    geglu.fuse,
    attention.fuse,
    conv.fuse,
)
"""Before the layout is settled."""

LATE: tuple[Callable[[Editor], None], ...] = (epilogues.fuse, activations.lower)
"""After it: what stands right behind a fused operator is known only then."""
