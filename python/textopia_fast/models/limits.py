"""Limits on what a model directory may contain: bounded time and memory for any input."""

from __future__ import annotations

MAX_GRAPH_BYTES_WITH_EXTERNAL_DATA = 64 << 20
"""Size of a model.onnx whose weights are elsewhere."""
MAX_GRAPH_BYTES = (2 << 30) - 1
"""Size of a model.onnx that holds its weights: protobuf's own limit."""
MAX_NODES = 20_000
MAX_INITIALIZERS = 20_000
MAX_RANK = 8
MAX_DIM = 2**31 - 1
MAX_DEPTH = 32
"""Depth of graphs inside of graphs."""

MAX_JSON_BYTES = 4 << 20
MAX_JSON_DEPTH = 16

MAX_VOCABULARY = 200_000
MAX_MERGES = 400_000
MAX_TOKEN_CHARACTERS = 512
MAX_TOKENIZER_BYTES = 32 << 20
"""Size of tokenizer.json, vocab.json or merges.txt."""

MAX_PROBLEMS = 20
"""So many problems of a directory are reported at once."""
