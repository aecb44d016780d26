"""A compiled graph at sizes that are known: nothing is left of what computes sizes.

Graphs of an engine serve every size, and compute what a Reshape needs from the shapes of their
inputs, on the host. Where one size is run many times, as a captured CUDA graph is, the numbers can
be put in instead.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from .edit import Editor
from .folding import fold
from .shapes import Shaper

__all__ = ["with_sizes"]


def with_sizes(path: Path, sizes: Mapping[str, int]) -> bytes:
    """A graph of an engine for these sizes alone.

    Args:
        path: Its file. The weights stay where they are: whoever opens the bytes names the folder.
        sizes: Numbers for the names of free sizes of its inputs; others stay free. Sizes without a
            name are called "input.axis". Those of inputs that the compiler has moved into another
            graph may be among them.
    """
    model = ir.load(path)
    ClearMetadataAndDocStringPass()(model)
    for value in (*model.graph.inputs, *model.graph.outputs):
        if value.shape is not None:
            value.shape = ir.Shape(
                [
                    size
                    if isinstance(size, int)
                    else sizes.get(size.value or f"{value.name}.{axis}", size)
                    for axis, size in enumerate(value.shape)
                ]
            )
    shaper = Shaper(model.graph)
    shaper.numbers = itertools.count(_free_number(model.graph))
    fold(Editor(model.graph, shaper))
    made: bytes = ir.to_proto(model).SerializeToString()
    return made


def _free_number(graph: ir.Graph) -> int:
    """One that stands at the end of no name of the graph."""
    values = [*graph.initializers.values(), *(out for node in graph for out in node.outputs)]
    ends = [(value.name or "").rpartition("_")[2] for value in values]
    return 1 + max((int(end) for end in ends if end.isdecimal()), default=0)
