"""The engine cache: one folder per (contents of the model, target, compiler version).

An engine is written under a temporary name and renamed when it is complete, under a lock that other
processes wait for; readers never see half of one. What turns out to be damaged is compiled again.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checks import shown
from ..errors import ModelIntegrityError, OutputError, TextopiaWarning
from .manifest import MANIFEST, checksum, read_manifest

__all__ = ["CacheEntry", "EngineCache", "default_cache_dir"]

_KNOWN = "known-files.json"
_MAX_KNOWN = 512
_TEMPORARY = ".new-"


def default_cache_dir() -> Path:
    """`$TEXTOPIA_CACHE_DIR`, else the user's cache directory of this system."""
    import platformdirs

    named = os.environ.get("TEXTOPIA_CACHE_DIR")
    return Path(named) if named else Path(platformdirs.user_cache_dir("textopia_fast")) / "engines"


@dataclass(frozen=True)
class CacheEntry:
    """One engine in the cache.

    Attributes:
        path: Its folder.
        model: Name of the model that it was compiled from.
        target: What it was compiled for.
        bytes: Size of its files.
        used: When it was opened last, in seconds since the epoch.
        problem: Why it cannot be used, or None.
    """

    path: Path
    model: str
    target: str
    bytes: int
    used: float
    problem: str | None


class EngineCache:
    """A directory of engines, shared by any number of processes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def obtain(
        self, key: str, build: Callable[[Path], None], verify: str = "size"
    ) -> tuple[Path, dict[str, Any]]:
        """The folder and manifest of the engine `key`; `build(folder)` writes it if need be.

        `verify` is that of `read_manifest`.

        Raises:
            OutputError: The cache cannot be written: read-only, full.
        """
        from filelock import FileLock

        folder = self.root / key
        with contextlib.suppress(ModelIntegrityError):
            return folder, self._open(folder, verify)
        with self._writing():
            self.root.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root / f"{key}.lock"):
                try:  # another process may have built it while this one waited
                    return folder, self._open(folder, verify)
                except ModelIntegrityError as error:
                    self._discard(folder, error)
                self._build(folder, build)
                return folder, self._open(folder, verify)

    def entries(self, verify: str = "size") -> list[CacheEntry]:
        """All engines, the one used last first."""
        found = []
        folders = self.root.iterdir() if self.root.is_dir() else ()
        for folder in folders:
            if not folder.is_dir() or folder.name.startswith(_TEMPORARY):
                continue
            files = [path for path in folder.rglob("*") if path.is_file()]
            size = sum(path.stat().st_size for path in files)
            facts: dict[str, Any] = {}
            problem = None
            try:
                facts = read_manifest(folder, verify)
            except ModelIntegrityError as error:
                problem = error.message
            used = folder.stat().st_mtime
            model, target = str(facts.get("model", "?")), str(facts.get("target", "?"))
            found.append(CacheEntry(folder, model, target, size, used, problem))
        return sorted(found, key=lambda entry: -entry.used)

    def prune(self, keep_bytes: int = 0) -> list[CacheEntry]:
        """Removes damaged engines, then those unused longest until `keep_bytes` are left.

        Returns what was removed. Half-written folders of processes that died go, too.
        """
        removed, total = [], 0
        for entry in self.entries():
            total += entry.bytes
            if entry.problem is None and total <= keep_bytes:
                continue
            total -= entry.bytes
            shutil.rmtree(entry.path, ignore_errors=True)
            with contextlib.suppress(OSError):
                (self.root / f"{entry.path.name}.lock").unlink()
            removed.append(entry)
        for folder in self.root.glob(f"{_TEMPORARY}*") if self.root.is_dir() else ():
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # a file, not a folder
                folder.unlink()
        return removed

    def fingerprint(self, path: Path) -> str:
        """Checksum of a file; remembered by place, size and time, so that it is read once."""
        found = path.stat()
        mark = f"{path.resolve()}:{found.st_size}:{found.st_mtime_ns}:{found.st_ino}"
        known = self._known()
        if mark not in known:
            known = {**dict(list(known.items())[-_MAX_KNOWN:]), mark: checksum(path)}
            with contextlib.suppress(OSError):  # only a memory: without it the file is read again
                self.root.mkdir(parents=True, exist_ok=True)
                self._replace(self.root / _KNOWN, json.dumps(known))
        return known[mark]

    def _known(self) -> dict[str, str]:
        with contextlib.suppress(OSError, ValueError):
            found = json.loads((self.root / _KNOWN).read_text("utf-8"))
            if isinstance(found, dict) and all(isinstance(v, str) for v in found.values()):
                return found
        return {}

    def _replace(self, path: Path, text: str) -> None:
        handle, name = tempfile.mkstemp(dir=self.root, prefix=_TEMPORARY)
        try:
            with open(handle, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise

    def _open(self, folder: Path, verify: str) -> dict[str, Any]:
        facts = read_manifest(folder, verify)
        with contextlib.suppress(OSError):
            os.utime(folder)
        return facts

    def _discard(self, folder: Path, error: ModelIntegrityError) -> None:
        if not folder.exists():
            return
        if (folder / MANIFEST).exists():
            warnings.warn(f"{error.message} It is compiled again.", TextopiaWarning, stacklevel=4)
        shutil.rmtree(folder)

    def _build(self, folder: Path, build: Callable[[Path], None]) -> None:
        new = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=self.root))
        try:
            build(new)
            os.chmod(new, 0o755)
            os.rename(new, folder)
        except BaseException:
            shutil.rmtree(new, ignore_errors=True)
            raise

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if isinstance(error, ModelIntegrityError | OutputError):
                raise
            number = _error_number(error)
            reason = error.strerror or (os.strerror(number) if number else str(error))
            raise OutputError(
                f"engine cache {shown(self.root)}: cannot be written ({reason}).",
                hint="Free some space, or name another directory with cache_dir."
                if number in (errno.ENOSPC, errno.EDQUOT)
                else "Name a directory that can be written with cache_dir.",
                errno=number,
                path=str(self.root),
            ) from error


def _error_number(error: OSError) -> int | None:
    """Of writes that fell short too: NumPy's `tofile` does not keep the number of a full disk."""
    if error.errno is None and re.search(r"\d+ requested and \d+ written", str(error)):
        return errno.ENOSPC
    return error.errno
