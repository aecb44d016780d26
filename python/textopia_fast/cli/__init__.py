"""The program `textopia-fast`. Heavy imports happen inside of its commands."""

from __future__ import annotations

from .app import main

__all__ = ["main"]
