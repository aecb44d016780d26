"""Data-parallel training, one single-threaded process per core, and the clock of a timed run.

Small networks lose much of a second thread's time in waiting; two processes that average their
gradients do not. With a GPU, or with one process, the same code runs without any exchange.
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def log(*words) -> None:
    """Prints a line with the time of day."""
    print(time.strftime("[%H:%M:%S]"), *words, flush=True)


def launch(worker, processes: int, *args) -> None:
    """Runs `worker(rank, processes, *args)` in that many processes that can exchange gradients."""
    if processes == 1:
        worker(0, 1, *args)
        return
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(_enter, (worker, processes, f"file://{folder}/meet", args), nprocs=processes)


def _enter(rank, worker, processes, meeting_point, args):
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    dist.init_process_group("gloo", meeting_point, rank=rank, world_size=processes)
    worker(rank, processes, *args)
    dist.destroy_process_group()


class GradientAverage:
    """Averages the gradients, and one scalar that all must agree on, over the processes."""

    def __init__(self, parameters: list[torch.nn.Parameter], processes: int):
        self.parameters, self.processes = parameters, processes
        size = sum(p.numel() for p in parameters)
        self.flat = torch.zeros(size + 1) if processes > 1 else None

    def __call__(self, scalar: float) -> float:
        """Replaces each gradient by its mean; returns the mean of `scalar`."""
        if self.flat is None:
            return scalar
        parts = [p.grad.reshape(-1) for p in self.parameters]
        torch.cat([*parts, torch.tensor([scalar])], out=self.flat)
        dist.all_reduce(self.flat)
        self.flat /= self.processes
        start = 0
        for p in self.parameters:
            p.grad.copy_(self.flat[start : start + p.numel()].view_as(p))
            start += p.numel()
        return self.flat[-1].item()


class TimedSchedule:
    """Progress of a run with a wall-clock budget; an interrupted run continues where it stopped.

    `progress()` goes from 0 to 1 over the budget, counting only the time spent training, so the
    learning-rate curve ends where the budget does, however fast the machine is.
    """

    def __init__(self, minutes: float, seconds_done: float = 0.0):
        self.budget, self.start = 60 * minutes, time.time() - seconds_done

    def seconds(self) -> float:
        return time.time() - self.start

    def progress(self) -> float:
        return self.seconds() / self.budget


def learning_rate_factor(progress: float, warm_up: float = 0.02, floor: float = 0.01) -> float:
    """Linear warm-up, then a half cosine down to `floor`."""
    cosine = 0.5 + 0.5 * math.cos(math.pi * min(1.0, max(0.0, progress)))
    return min(1.0, progress / warm_up) * (floor + (1 - floor) * cosine) + 1e-4


def save(path: Path, **things) -> None:
    """Writes a checkpoint so that a reader or a crash never meets half of one."""
    part = path.with_suffix(".part")
    torch.save(things, part)
    part.replace(path)


def write_json(path: Path, value) -> None:
    """Writes indented JSON with a final newline, creating the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
