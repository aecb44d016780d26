"""The graph compiler: exported ONNX graphs become graphs of fused operators, kept as engines."""

from __future__ import annotations

from .engine import EngineDirectory, EnginePart, compile_directory
from .targets import TARGETS, Target

__all__ = ["TARGETS", "EngineDirectory", "EnginePart", "Target", "compile_directory"]
