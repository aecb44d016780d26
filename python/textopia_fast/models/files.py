"""Reads files of a model directory: bounded, never a pipe, never from outside of the directory."""

from __future__ import annotations

import json
import os
import re
import stat
from pathlib import Path
from typing import Any, NoReturn

from ..checks import shown
from ..errors import (
    ModelFormatError,
    ModelNotFoundError,
    UnsafeModelError,
)
from .limits import MAX_JSON_BYTES, MAX_JSON_DEPTH
from .problems import EXPORT_AGAIN, INCOMPLETE

__all__ = ["ModelFiles"]

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")


class ModelFiles:
    """The files below one root. Links may lead to other files of the root and nowhere else.

    One exception: in the layout of the Hugging Face cache, `snapshots/<revision>/unet/model.onnx`
    is a link into `blobs/` of the same repository.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        real = root.resolve()
        self._allowed = [real]
        if real.parent.name == "snapshots":
            self._allowed.append(real.parent.parent / "blobs")

    def label(self, path: Path) -> str:
        """Name of a file in messages: relative to the root, safe to print."""
        try:
            text = path.relative_to(self.root).as_posix()
        except ValueError:
            text = path.name
        return text if text.isprintable() and len(text) <= 120 else shown(text, 120)

    def stat(self, path: Path, component: str | None = None) -> os.stat_result:
        """Facts of a regular file inside the root; does not open it.

        Raises:
            ModelNotFoundError: It is not there, or not accessible.
            ModelFormatError: It is a directory, a pipe or a device.
            UnsafeModelError: It is a link that leads out of the model directory.
        """
        facts = {"component": component, "path": self.label(path)}
        try:
            real = path.resolve(strict=True)
            found = real.stat()
        except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links
            self._not_readable(path, error, facts)
        if not any(real.is_relative_to(allowed) for allowed in self._allowed):
            raise UnsafeModelError(
                f"{self.label(path)}: leads to a file outside of the model directory.",
                hint="Put the file itself there instead of a link.",
                rule="containment",
                **facts,
            )
        if not stat.S_ISREG(found.st_mode):
            kind = "a directory" if stat.S_ISDIR(found.st_mode) else "a pipe, socket or device"
            raise ModelFormatError(
                f"{self.label(path)}: is {kind}, a file is expected.", hint=EXPORT_AGAIN, **facts
            )
        return found

    def read(self, path: Path, limit: int, component: str | None = None) -> bytes:
        """Contents of a file of at most `limit` bytes. Raises like `stat`, and UnsafeModelError."""
        facts = {"component": component, "path": self.label(path)}
        size = self.stat(path, component).st_size
        if size > limit:
            raise UnsafeModelError(
                f"{self.label(path)}: has {size:,} bytes, at most {limit:,} are allowed.",
                rule="size",
                **facts,
            )
        try:
            # O_NONBLOCK: should a pipe have taken the file's place, this still does not wait.
            handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            with open(handle, "rb") as file:
                return file.read(limit)
        except OSError as error:
            self._not_readable(path, error, facts)

    def read_text(self, path: Path, limit: int, component: str | None = None) -> str:
        """Contents of a UTF-8 file."""
        data = self.read(path, limit, component)
        try:
            return data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ModelFormatError(
                f"{self.label(path)}: is not UTF-8 text (byte {error.start:,}).",
                hint=EXPORT_AGAIN,
                component=component,
                path=self.label(path),
                offset=error.start,
            ) from error

    def read_json(
        self, path: Path, component: str | None = None, limit: int = MAX_JSON_BYTES
    ) -> dict[str, Any]:
        """A JSON file whose top level is an object.

        Raises:
            ModelFormatError: No JSON, a duplicate key, or something else than an object on top.
            UnsafeModelError: Larger or nested deeper than is allowed.
        """
        facts = {"component": component, "path": self.label(path)}
        text = self.read_text(path, limit, component)
        if _json_depth(text) > MAX_JSON_DEPTH:
            raise UnsafeModelError(
                f"{self.label(path)}: is nested deeper than {MAX_JSON_DEPTH} levels.",
                rule="json_depth",
                **facts,
            )
        try:
            value = json.loads(text, object_pairs_hook=_no_duplicates)
        except ValueError as error:
            raise ModelFormatError(
                f"{self.label(path)}: is not valid JSON ({shown(str(error), 120)}).",
                hint=EXPORT_AGAIN,
                **facts,
            ) from error
        if not isinstance(value, dict):
            raise ModelFormatError(
                f"{self.label(path)}: holds {_json_kind(value)}, an object is expected.",
                hint=EXPORT_AGAIN,
                **facts,
            )
        return value

    def _not_readable(self, path: Path, error: Exception, facts: dict[str, Any]) -> NoReturn:
        if isinstance(error, FileNotFoundError):
            raise ModelNotFoundError(
                f"{self.label(path)}: there is no such file in {shown(self.root)}.",
                hint=INCOMPLETE,
                **facts,
            ) from error
        reason = error.strerror if isinstance(error, OSError) else None
        raise ModelNotFoundError(
            f"{self.label(path)}: cannot be read ({reason or shown(str(error))}).",
            hint="Check the file's permissions and links.",
            **facts,
        ) from error


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"key {shown(key)} occurs twice")
        result[key] = value
    return result


def _json_depth(text: str) -> int:
    """Deepest nesting of brackets outside of strings; json.loads would recurse that deep."""
    depth = deepest = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _json_kind(value: Any) -> str:
    kinds = {list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")
