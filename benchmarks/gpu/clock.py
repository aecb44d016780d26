"""Times on a GPU: events of its stream around a run; in a rehearsal the host's clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Run = Callable[[], Any]


@dataclass(frozen=True)
class Runner:
    """What is timed.

    Attributes:
        run: Enqueues the work, or does it.
        parts: Steps or launches in one run: times are per part.
        stream: Address of the stream that the work is on; None for torch's current one.
        measures: `run` returns its own milliseconds per part, of events on the GPU.
    """

    run: Run
    parts: int = 1
    stream: int | None = None
    measures: bool = False


def milliseconds(runner: Runner, is_rehearsal: bool) -> float:
    """Of one part of one run."""
    if runner.measures:
        return float(runner.run())
    if is_rehearsal:
        start = time.perf_counter()
        runner.run()
        return (time.perf_counter() - start) * 1e3 / runner.parts
    import torch

    stream = torch.cuda.current_stream()
    if runner.stream is not None:
        stream = torch.cuda.ExternalStream(runner.stream)
    torch.cuda.synchronize()
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record(stream)
    runner.run()
    last.record(stream)
    last.synchronize()
    return float(first.elapsed_time(last)) / runner.parts


def summary(times: list[float]) -> dict[str, float]:
    return {
        "median_ms": statistics.median(times),
        "min_ms": min(times),
        "max_ms": max(times),
        "runs": len(times),
    }
