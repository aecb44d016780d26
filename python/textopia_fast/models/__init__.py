"""Model directories: what is in them, and whether it can be trusted and run."""

from __future__ import annotations

from .directory import BUNDLED, ModelDirectory, Part, open_directory
from .signature import GraphSignature, Ports, TensorSpec, classify

__all__ = [
    "BUNDLED",
    "GraphSignature",
    "ModelDirectory",
    "Part",
    "Ports",
    "TensorSpec",
    "classify",
    "open_directory",
]
