"""The file of an engine that holds measured plans: what is in it, and when it is believed."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import _core
from ..checks import shown
from ..errors import OutputError, TextopiaError, TextopiaWarning

__all__ = ["PLANS", "Entry", "read_plans", "write_plans"]

PLANS = "plans.json"
FORMAT = 1
_MAX_BYTES = 1 << 22

Entry = tuple[tuple[int, ...], tuple[int, ...]]
"""A shape of a product and its plan, numbers as in csrc/binding/bind_tuning.cc."""


def read_plans(folder: Path, threads: int | None = None) -> _core.KeptPlans | None:
    """The plans that were measured with this CPU, matrix unit and number of threads.

    None where there are none. A file that is damaged, was edited or belongs to another engine is
    left alone, with a TextopiaWarning.

    Args:
        folder: The engine.
        threads: Of the sessions; None for one per usable CPU.
    """
    path = folder / PLANS
    if not os.path.lexists(path):
        return None
    try:
        for record in _records(path):
            if _is_of_here(record, threads):
                return _core.KeptPlans([(shape, plan) for shape, plan in record["plans"]])
    except _BAD as error:
        text = error.message if isinstance(error, TextopiaError) else str(error)
        warnings.warn(
            f"engine {shown(folder.name)}: {PLANS} is ignored ({shown(text, 120)}). "
            "`textopia-fast compile --tune` measures it anew.",
            TextopiaWarning,
            stacklevel=3,
        )
    return None


def write_plans(folder: Path, threads: int, plans: Sequence[Entry]) -> None:
    """Keeps plans of this machine; those of other machines and thread counts stay.

    Raises:
        OutputError: The folder cannot be written.
    """
    from filelock import FileLock

    path = folder / PLANS
    record = {**_here(threads), "plans": [[list(shape), list(plan)] for shape, plan in plans]}
    try:
        with FileLock(folder.parent / f"{folder.name}.lock"):
            try:
                others = [other for other in _records(path) if not _is_of_here(other, threads)]
            except _BAD:
                others = []
            _replace(path, {"engine": folder.name, "records": [*others, record]})
    except OSError as error:
        raise OutputError(
            f"engine {shown(folder.name)}: {PLANS} cannot be written ({error.strerror or error}).",
            errno=error.errno,
            path=str(path),
        ) from error


_BAD = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, TextopiaError)


def _records(path: Path) -> list[dict[str, Any]]:
    """Of all machines. Raises one of _BAD where the file is not as it was written, or foreign."""
    if path.is_symlink() or path.stat().st_size > _MAX_BYTES:
        raise ValueError("it is a link or too large")
    content = json.loads(path.read_text("utf-8"))
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {shown(content['format'])}, known is {FORMAT}")
    if content["checksum"] != _checksum(content):
        raise ValueError("it has changed since it was written")
    if content["engine"] != path.parent.name:
        raise ValueError(f"it belongs to {shown(content['engine'])}")
    records: list[dict[str, Any]] = list(content["records"])
    return records


def _replace(path: Path, facts: dict[str, Any]) -> None:
    content = {"format": FORMAT, **facts}
    content["checksum"] = _checksum(content)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{PLANS}-")
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(content) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _checksum(content: dict[str, Any]) -> str:
    text = json.dumps([content["format"], content["engine"], content["records"]], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _here(threads: int) -> dict[str, Any]:
    return {"cpu": _cpu(), "unit": _core.active_matrix_unit(), "threads": threads}


def _is_of_here(record: dict[str, Any], threads: int | None) -> bool:
    here = _here(threads or _core.usable_cpus())
    return all(record[key] == value for key, value in here.items())


def _cpu() -> str:
    """Maker and model; virtual machines often give all models one name, so the numbers, too."""
    facts: dict[str, str] = {}
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                key, _, value = line.partition(":")
                if not key.strip():
                    break
                facts[key.strip()] = value.strip()
    except OSError:
        return "unknown"
    keys = ("model name", "cpu family", "model", "stepping", "cache size")
    return ", ".join(facts.get(key, "?") for key in keys)
