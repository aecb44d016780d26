"""Checks one stored tensor of a graph: do its dimensions, its bytes and its place agree?"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..checks import shown
from ..errors import (
    ModelError,
    ModelFormatError,
    ModelIntegrityError,
    UnsafeModelError,
    UnsupportedModelError,
)
from .files import ModelFiles
from .limits import MAX_DIM, MAX_RANK
from .problems import EXPORT_AGAIN, TRUNCATED, text_of

if TYPE_CHECKING:
    import onnx

__all__ = ["ExternalRange", "TensorChecker"]

# Bits of one element and the field that holds it when raw_data does not, by ONNX element type.
_STORAGE: dict[int, tuple[int, str]] = {
    1: (32, "float_data"),
    2: (8, "int32_data"),
    3: (8, "int32_data"),
    4: (16, "int32_data"),
    5: (16, "int32_data"),
    6: (32, "int32_data"),
    7: (64, "int64_data"),
    9: (8, "int32_data"),
    10: (16, "int32_data"),
    11: (64, "double_data"),
    12: (32, "uint64_data"),
    13: (64, "uint64_data"),
    16: (16, "int32_data"),
    17: (8, "int32_data"),
    18: (8, "int32_data"),
    19: (8, "int32_data"),
    20: (8, "int32_data"),
    21: (4, "int32_data"),
    22: (4, "int32_data"),
}
_STRING = 8
_EXTERNAL = 1
_KEYS = ("location", "offset", "length", "checksum")


@dataclass(frozen=True)
class ExternalRange:
    """Bytes [begin, end) of the file `location` that one tensor uses."""

    location: str
    begin: int
    end: int
    tensor: str


class TensorChecker:
    """Checks the tensors of one graph file; remembers which external files they use.

    Args:
        files: The model directory.
        graph: Path of the graph's file; external data must lie beside it.
        component: Name of the part, for messages.
    """

    def __init__(self, files: ModelFiles, graph: Path, component: str) -> None:
        self.ranges: list[ExternalRange] = []
        self.external: dict[str, Path] = {}
        self._sizes: dict[str, int | None] = {}
        self._files = files
        self._graph = graph
        self._component = component
        self._label = files.label(graph)

    def check(self, tensor: onnx.TensorProto) -> Iterator[ModelError]:
        """Yields what is wrong with one tensor."""
        name = f"tensor {shown(text_of(tensor.name))}"
        if tensor.data_location == _EXTERNAL or tensor.external_data:
            yield from self._check_external(tensor, name)
            return
        dims = tuple(tensor.dims)
        if bad := _bad_dims(dims):
            yield self._unsafe(f"{name} {bad}", "dims")
            return
        elements = math.prod(dims)
        if tensor.data_type == _STRING:
            found, needed, unit = len(tensor.string_data), elements, "strings"
        elif tensor.data_type not in _STORAGE:
            yield self._bad_type(tensor, name)
            return
        else:
            bits, field = _STORAGE[tensor.data_type]
            values = len(getattr(tensor, field))
            if tensor.HasField("raw_data") or not values:
                found, needed, unit = len(tensor.raw_data), (elements * bits + 7) // 8, "bytes"
            else:
                packed = 2 if bits == 4 else 1
                found, needed, unit = values, -(-elements // packed), "values"
        if found != needed:
            shape = "x".join(map(str, dims)) or "scalar"
            yield self._format(f"{name} of shape {shape} needs {needed:,} {unit} but has {found:,}")

    def overlaps(self) -> Iterator[ModelError]:
        """Yields pairs of tensors that share bytes of an external file without being the same."""
        last: ExternalRange | None = None
        for this in sorted(self.ranges, key=lambda r: (r.location, r.begin, r.end)):
            if this.begin == this.end:
                continue
            if last and this.location == last.location and this.begin < last.end:
                if (this.begin, this.end) != (last.begin, last.end):
                    yield self._unsafe(
                        f"tensors {shown(last.tensor)} and {shown(this.tensor)} overlap in "
                        f"{shown(this.location)}",
                        "overlap",
                    )
                    return
            else:
                last = this

    def _check_external(self, tensor: onnx.TensorProto, name: str) -> Iterator[ModelError]:
        entries = {text_of(entry.key): text_of(entry.value) for entry in tensor.external_data}
        if len(entries) != len(tensor.external_data) or not entries.keys() <= set(_KEYS):
            keys = ", ".join(shown(entry.key) for entry in list(tensor.external_data)[:8])
            yield self._unsafe(
                f"{name} has external-data keys {keys}; allowed, once each, are {', '.join(_KEYS)}",
                "external_keys",
            )
            return
        location = entries.get("location", "")
        if not _is_plain_name(location):
            yield self._unsafe(
                f"{name} has its data at {shown(location)}, which is not the plain name of a file "
                "beside the graph",
                "location",
            )
            return
        dims = tuple(tensor.dims)
        if bad := _bad_dims(dims):
            yield self._unsafe(f"{name} {bad}", "dims")
            return
        if tensor.data_type not in _STORAGE:
            yield self._bad_type(tensor, name)
            return
        needed = (math.prod(dims) * _STORAGE[tensor.data_type][0] + 7) // 8
        offset = _number(entries.get("offset", "0"))
        length = _number(entries["length"]) if "length" in entries else needed
        if offset is None or length is None:
            yield self._format(
                f"{name} has offset {shown(entries.get('offset', '0'))} and length "
                f"{shown(entries.get('length', ''))}; numbers of bytes are expected"
            )
            return
        if length != needed:
            yield self._format(f"{name} needs {needed:,} bytes but its length is {length:,}")
            return
        if location not in self._sizes:
            self._sizes[location] = None
            path = self._graph.parent / location
            try:
                self._sizes[location] = self._files.stat(path, self._component).st_size
                self.external[location] = path
            except ModelError as error:
                yield error
        size = self._sizes[location]
        if size is None:
            return
        if offset + needed > size:
            place = self._files.label(self._graph.parent / location)
            yield ModelIntegrityError(
                f"{self._label}: {name} needs {needed:,} bytes at offset {offset:,} but {place} "
                f"has {size:,}.",
                hint=TRUNCATED,
                component=self._component,
                path=place,
                expected=offset + needed,
                actual=size,
            )
            return
        self.ranges.append(ExternalRange(location, offset, offset + needed, tensor.name))

    def _facts(self) -> dict[str, str]:
        return {"component": self._component, "path": self._label}

    def _unsafe(self, text: str, rule: str) -> ModelError:
        return UnsafeModelError(f"{self._label}: {text}.", rule=rule, **self._facts())

    def _format(self, text: str) -> ModelError:
        return ModelFormatError(
            f"{self._label}: {text}.",
            hint=EXPORT_AGAIN,
            **self._facts(),
        )

    def _bad_type(self, tensor: onnx.TensorProto, name: str) -> ModelError:
        return UnsupportedModelError(
            f"{self._label}: {name} has the unknown element type {tensor.data_type}.",
            **self._facts(),
        )


def _bad_dims(dims: tuple[int, ...]) -> str | None:
    if len(dims) > MAX_RANK:
        return f"has rank {len(dims)}, at most {MAX_RANK} is allowed"
    wrong = [dim for dim in dims if not 0 <= dim <= MAX_DIM]
    if wrong:
        return f"has a dimension of {wrong[0]:,}, allowed are 0 to {MAX_DIM:,}"
    return None


def _is_plain_name(location: str) -> bool:
    return (
        bool(location)
        and location not in (".", "..")
        and location.isprintable()
        and not any(char in location for char in '/\\:*?"<>|')
        and os.path.basename(location) == location
        and len(location.encode("utf-8", "replace")) <= 255
    )


def _number(text: str) -> int | None:
    """A count of bytes as external data writes it: plain ASCII digits below 2^63."""
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        return None
    value = int(text)
    return value if value < 2**63 else None
