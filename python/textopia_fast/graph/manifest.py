"""What an engine directory says about itself: its files, their sizes and checksums."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..checks import shown
from ..errors import ModelIntegrityError

__all__ = ["MANIFEST", "checksum", "describe_files", "read_manifest", "write_manifest"]

MANIFEST = "engine.json"
FORMAT = 1
_CHUNK = 1 << 22
_MAX_MANIFEST_BYTES = 1 << 22


def checksum(path: Path, start: Iterable[bytes] = ()) -> str:
    """BLAKE2b of a file's contents (after the bytes `start`), 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    for part in start:
        digest.update(part)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and checksum of every file below `folder`, by its relative name."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): {
            "bytes": path.stat().st_size,
            "checksum": checksum(path),
        }
        for path in files
    }


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Writes the manifest of a folder whose other files are complete, and sees all to the disk."""
    files = describe_files(folder)
    text = json.dumps({"format": FORMAT, **facts, "files": files}, indent=1)
    (folder / MANIFEST).write_text(text + "\n", "utf-8")
    for name in (*files, MANIFEST):
        handle = os.open(folder / name, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read_manifest(folder: Path, verify: str = "size") -> dict[str, Any]:
    """The manifest of an engine whose files are as they were written.

    Args:
        folder: The engine.
        verify: "size" compares sizes, and checksums of the graphs; "full" all checksums.

    Raises:
        ModelIntegrityError: The manifest or a file is missing, cut short, or changed.
    """
    path = folder / MANIFEST

    def broken(text: str) -> ModelIntegrityError:
        return ModelIntegrityError(
            f"engine {shown(folder.name)}: {text}.",
            hint="It is compiled again from the model when it is needed.",
            path=str(folder),
        )

    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise broken(f"{MANIFEST} has {path.stat().st_size:,} bytes")
        facts = json.loads(path.read_text("utf-8"))
        files = dict(facts["files"])
        if facts["format"] != FORMAT:
            raise broken(f"{MANIFEST} has the format {shown(facts['format'])}, known is {FORMAT}")
        for name, entry in files.items():
            _check_file(folder, name, entry, verify, broken)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, ModelIntegrityError):
            raise
        raise broken(f"{MANIFEST} cannot be read ({shown(str(error), 120)})") from error
    found: dict[str, Any] = facts
    return found


def _check_file(
    folder: Path, name: str, entry: Mapping[str, Any], verify: str, broken: Any
) -> None:
    path = folder / name
    parts = Path(name).parts
    if path.is_symlink() or ".." in parts or Path(name).is_absolute() or not path.is_file():
        raise broken(f"{shown(name)} is missing")
    size = path.stat().st_size
    if size != entry["bytes"]:
        raise broken(f"{shown(name)} has {size:,} bytes, written were {entry['bytes']:,}")
    is_small = name.endswith(".onnx")
    if (verify == "full" or is_small) and checksum(path) != entry["checksum"]:
        raise broken(f"{shown(name)} has changed since it was written")
