"""The program `textopia-fast`. Nothing else of the package needs it."""

from __future__ import annotations

from .app import main

__all__ = ["main"]
