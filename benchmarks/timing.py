"""How everything here is timed, and the stamp that says where.

Competitors run in one process, in turns, so that a busy machine slows all of them alike. Times are
medians with the 10th and 90th percentile; nothing is averaged.
"""

from __future__ import annotations

import contextlib
import datetime
import gc
import importlib.metadata
import importlib.util
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

PACKAGES = (
    "textopia-fast",
    "numpy",
    "onnxruntime",
    "openvino",
    "openvino-genai",
    "torch",
    "diffusers",
    "transformers",
    "k-diffusion",
)


class NotInstalledError(Exception):
    """A competitor cannot run here; the message says which package it lacks."""


def require(*modules: str) -> None:
    """Raises NotInstalledError unless every module can be found."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise NotInstalledError(f"not installed: {', '.join(missing)}")


@dataclass(frozen=True)
class Times:
    """Of one competitor's runs: milliseconds, until scaled to something else."""

    median: float
    p10: float
    p90: float
    count: int

    def scaled(self, factor: float, offset_ms: float = 0.0) -> Times:
        """(time - offset) * factor, for "per step" and "beyond the graph"."""
        values = ((v - offset_ms) * factor for v in (self.median, self.p10, self.p90))
        return Times(*values, self.count)

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def summarize(seconds: Sequence[float]) -> Times:
    ordered = sorted(1e3 * value for value in seconds)
    last = len(ordered) - 1
    return Times(
        statistics.median(ordered), ordered[round(0.1 * last)], ordered[round(0.9 * last)], last + 1
    )


def alternate(
    runs: dict[str, Callable[[], Any]], rounds: int, warm_up: int = 2
) -> dict[str, Times]:
    """Times each of `runs` once per round, the order rotating from round to round.

    A run may return a float: seconds that it has measured itself, which then count instead.
    """
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for name in names:
        for _ in range(warm_up):
            runs[name]()
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        for i in range(rounds):
            for k in range(len(names)):
                name = names[(i + k) % len(names)]
                start = time.perf_counter()
                measured = runs[name]()
                elapsed = time.perf_counter() - start
                seconds[name].append(measured if isinstance(measured, float) else elapsed)
    finally:
        if was_enabled:
            gc.enable()
    return {name: summarize(values) for name, values in seconds.items()}


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Holds torch, where it is installed, to one thread: small tensors gain nothing from more."""
    if importlib.util.find_spec("torch") is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    if found["textopia-fast"] == "not installed":  # run from a checkout
        import textopia_fast

        found["textopia-fast"] = f"{textopia_fast.__version__} (checkout)"
    return found


def machine() -> dict[str, Any]:
    """What is stamped into every result."""
    from textopia_fast import _core

    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": _core.usable_cpus(),
        "isa": _core.active_isa(),
        "system": f"{platform.system()} {platform.machine()}",
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "packages": _versions(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }


def slug(stamp: dict[str, Any]) -> str:
    """File name of a machine: cpu and cores."""
    words = re.sub(r"\((R|TM|C)\)|CPU|Processor|@.*", " ", stamp["cpu"], flags=re.IGNORECASE)
    name = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")
    return f"{name}-{stamp['usable_cores']}c"
