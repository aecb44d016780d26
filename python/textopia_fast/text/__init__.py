"""Text to tokens."""

from __future__ import annotations

from .tokenizer import MAX_PROMPT_BYTES, Tokenizer

__all__ = ["MAX_PROMPT_BYTES", "Tokenizer"]
