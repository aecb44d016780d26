"""Memory of a process, in bytes, as Linux counts it; None or empty where it does not say."""

from __future__ import annotations

import resource
from pathlib import Path


def peak_bytes() -> int:
    """The most that this process has had, pages of mapped files included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def own_bytes(process: int | str = "self") -> int | None:
    """Memory now that is not a file's pages, which processes share."""
    return _fields(process, "status").get("RssAnon")


def shares(process: int | str = "self") -> dict[str, int]:
    """`Pss` (a page of n processes counts 1/n), `Pss_File`, `Rss`, `Private_Dirty` ..."""
    return _fields(process, "smaps_rollup")


def _fields(process: int | str, file: str) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{process}/{file}").read_text().splitlines()
    except OSError:
        return {}
    words = [line.split() for line in lines]
    return {w[0].rstrip(":"): int(w[1]) * 1024 for w in words if len(w) == 3 and w[2] == "kB"}
