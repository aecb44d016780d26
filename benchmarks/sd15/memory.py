"""Memory of a process, in bytes, as Linux counts it; None or empty where it does not say."""

from __future__ import annotations

import contextlib
from pathlib import Path


def peak_bytes(process: int | str = "self") -> int | None:
    """The most that a process has had, pages of mapped files included.

    Not that of `getrusage`, which begins with what the parent had when it started the process.
    """
    return _fields(process, "status").get("VmHWM")


def own_bytes(process: int | str = "self") -> int | None:
    """Memory now that is not a file's pages, which processes share."""
    return _fields(process, "status").get("RssAnon")


def go_first() -> None:
    """Where the machine runs out of memory, this process is ended, and no other."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def available_bytes() -> int:
    """What new processes may take without swapping."""
    return _read(Path("/proc/meminfo")).get("MemAvailable", 0)


def shares(process: int | str = "self") -> dict[str, int]:
    """`Pss` (a page of n processes counts 1/n), `Pss_File`, `Rss`, `Private_Dirty` ..."""
    return _fields(process, "smaps_rollup")


def _fields(process: int | str, file: str) -> dict[str, int]:
    return _read(Path(f"/proc/{process}/{file}"))


def _read(path: Path) -> dict[str, int]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    words = [line.split() for line in lines]
    return {w[0].rstrip(":"): int(w[1]) * 1024 for w in words if len(w) == 3 and w[2] == "kB"}
