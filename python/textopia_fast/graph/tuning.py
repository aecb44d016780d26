"""Plans of an engine's products that were measured on this machine, kept beside its manifest.

How a product is cut into tasks is computed from a small model of the machine (csrc/cpu/plan.cc).
Tuning tries plans near the computed ones while the engine's own graphs run, so that caches are as
cold as they will be, and keeps those that won. No bit of a result depends on them. They belong to
the CPU, the matrix unit and the number of threads that they were measured with; others leave them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import _core
from .._ort import MAX_THREADS, create_session
from ..checks import check_integer, refuse
from ..errors import UnsupportedModelError
from ..models import ModelDirectory
from .plans import write_plans

if TYPE_CHECKING:
    from .engine import EngineDirectory

__all__ = ["TuningResult", "tune_engine"]

SECONDS = 90.0
# Shares of the time, in this order; what a graph leaves is for those behind it. The body of the
# U-Net, which runs most, comes last.
_SHARES = {
    "text_encoder/model": 0.02,
    "unet/prompt": 0.02,
    "vae_encoder/model": 0.12,
    "vae_decoder/model": 0.3,
    "unet/body": 1.0,
}
_TRIALS = 0.8  # of a graph's time; the rest compares its new plans with the computed ones
_LEAST_GAIN = 0.03  # of a product; less is chance
_COMPARISONS, _LEAST_SECONDS = 15, 0.1  # runs in turns, fewer where time is over
_DTYPES = {"float32": np.float32, "bfloat16": np.float32, "float16": np.float16}

Progress = Callable[[str, int, int], Any]
Trials = Sequence[tuple[tuple[int, ...], Sequence[tuple[tuple[int, ...], Sequence[float]]]]]


@dataclass(frozen=True)
class TuningResult:
    """What tuning did for one graph.

    Attributes:
        graph: "unet/body".
        shapes: Distinct products that it runs.
        plans: How many of them have a plan of their own now.
        seconds_before: Of a run with the computed plans, the median of runs in turns; the fastest
            run where no plan was better.
        seconds_after: The same with the new plans.
    """

    graph: str
    shapes: int
    plans: int
    seconds_before: float
    seconds_after: float


def tune_engine(
    engine: EngineDirectory,
    directory: ModelDirectory,
    *,
    size: tuple[int, int] | None = None,
    threads: int | None = None,
    seconds: float = SECONDS,
    progress: Progress | None = None,
) -> list[TuningResult]:
    """Measures plans for one picture with guidance, and keeps the best in the engine's folder.

    What was measured before with the same CPU, unit and threads is replaced. A graph keeps its
    computed plans unless the new ones make it faster in runs that alternate with the old.

    Args:
        engine: What `compile_directory` gave for "cpu-bf16".
        directory: The model that it was compiled from.
        size: (width, height) of the picture in pixels; None for the model's own.
        threads: Those that the plans are for; None for one per usable CPU.
        seconds: The most that all of it takes; but every graph runs once at least.
        progress: `progress("tuning unet/body", done, total)` after each run.

    Raises:
        InvalidRequestError: A size or number of threads that cannot be.
        UnsupportedModelError: An input of a graph whose size cannot be told.
        OutputError: The folder cannot be written.
    """
    threads = _core.usable_cpus() if threads is None else threads
    check_integer("threads", threads, 1, MAX_THREADS)
    started = time.monotonic()
    results, entries = [], {}
    for name, share in _SHARES.items():
        part, graph = name.split("/")
        if part not in engine.parts or graph not in engine.parts[part].graphs:
            continue
        end = time.monotonic() + share * (started + seconds - time.monotonic())
        inputs = _InputMaker(directory, engine, part, graph, size)
        found, result = _tune_graph(name, inputs, threads, end, progress)
        entries.update(found)
        results.append(result)
    write_plans(engine.path, threads, sorted(entries.items()))
    return results


class _InputMaker:
    """Random inputs of a graph for one picture with guidance."""

    def __init__(
        self,
        directory: ModelDirectory,
        engine: EngineDirectory,
        part: str,
        graph: str,
        size: tuple[int, int] | None,
    ) -> None:
        facts = directory.facts
        self.path: Path = engine.parts[part].graphs[graph]
        width, height = size or (facts.default_width, facts.default_height)
        for side in (width, height):
            if side % facts.vae_scale_factor != 0 or side < 1:
                refuse("size", side, f"are positive multiples of {facts.vae_scale_factor}")
        factor = 1 if part == "vae_encoder" else facts.vae_scale_factor
        self._image = {2: height // factor, 3: width // factor}
        self._tokens = facts.max_tokens
        # The body takes a latent for both halves of guidance, or one for each.
        is_shared = engine.parts[part].split.get("prefix", 0) > 0
        self._rows = {"prompt_rows": 2} if graph == "body" else {}
        self._rows_else = 2 if graph == "body" and not is_shared else 1

    def feeds(self, session: _core.Session) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        made = {}
        for info in session.inputs:
            shape = [self._number(info, axis) for axis in range(len(info.shape))]
            if info.dtype not in _DTYPES:  # tokens, timesteps
                made[info.name] = np.ones(shape, info.dtype)
                continue
            values = rng.standard_normal(shape, np.float32)
            if info.dtype == "bfloat16":
                made[info.name] = _core.float_to_bfloat16(_core.active_isa(), values)
            else:
                made[info.name] = values.astype(_DTYPES[info.dtype])
        return made

    def _number(self, info: _core.TensorInfo, axis: int) -> int:
        size = info.shape[axis]
        if isinstance(size, int):
            return size
        if axis == 0:
            return self._rows.get(size, self._rows_else)
        if len(info.shape) == 4 and axis in self._image:
            return self._image[axis]
        if axis == 1:
            return self._tokens
        raise UnsupportedModelError(
            f"tuning: input '{info.name}' has an unknown size in dimension {axis}."
        )


def _tune_graph(
    name: str, inputs: _InputMaker, threads: int, end: float, progress: Progress | None
) -> tuple[dict[tuple[int, ...], tuple[int, ...]], TuningResult]:
    """The plans that won, by shape; `end` is when it has to be over."""
    trials = _core.PlanTrials()
    session = _open(inputs.path, threads, trials)
    feeds = inputs.feeds(session)
    started = time.monotonic()
    until = started + _TRIALS * (end - started)

    def run() -> float:
        begin = time.monotonic()
        session.run(feeds)
        now = time.monotonic()
        if progress is not None:
            total = trials.done + trials.missing
            tried = trials.done / total if total else 1.0
            share = max(tried, (now - started) / max(until - started, 1e-3))
            progress(f"tuning {name}", round(1000 * min(share, 1.0)), 1000)
        return now - begin

    fastest = run()  # what is only allocated and mapped by a first run does not count
    warm = {shape: [len(times) for _, times in plans] for shape, plans in trials.trials()}
    while trials.missing > 0 and time.monotonic() + fastest < until:
        fastest = min(fastest, run())
    found = dict(_winners(trials.trials(), warm))
    before = after = fastest
    if found:
        before, after = _compare(inputs.path, feeds, threads, list(found.items()), end)
    if after >= before:
        found, after = {}, before
    return found, TuningResult(name, len(warm), len(found), before, after)


def _winners(
    trials: Trials, warm: Mapping[tuple[int, ...], Sequence[int]]
) -> Iterator[tuple[tuple[int, ...], tuple[int, ...]]]:
    """(shape, plan) where another plan than the computed one was clearly faster."""
    for shape, plans in trials:
        skipped = warm.get(shape, [0] * len(plans))
        tried = [
            (plan, times[skip:])
            for (plan, times), skip in zip(plans, skipped, strict=True)
            if len(times) - skip >= 2
        ]
        if len(tried) < 2 or tried[0][0] != plans[0][0]:
            continue
        computed = tried[0][1]
        plan, times = min(tried, key=lambda entry: statistics.median(entry[1]))
        limit = 1.0 - _LEAST_GAIN
        if statistics.median(times) < limit * statistics.median(computed) and min(
            times
        ) < limit * min(computed):
            yield shape, plan


def _compare(
    path: Path,
    feeds: Mapping[str, np.ndarray],
    threads: int,
    found: Sequence[Any],
    end: float,
) -> tuple[float, float]:
    """Seconds of a run with the computed plans and with `found`, medians of runs in turns."""
    sessions = [_open(path, threads, plans) for plans in (None, _core.KeptPlans(found))]
    feeds = dict(feeds)
    for session in sessions:
        session.run(feeds)
    times: list[list[float]] = [[] for _ in sessions]
    end = max(end, time.monotonic() + _LEAST_SECONDS)
    for turn in range(_COMPARISONS):
        for session, kept in zip(sessions, times, strict=True):
            begin = time.perf_counter()
            session.run(feeds)
            kept.append(time.perf_counter() - begin)
        if turn > 0 and time.monotonic() > end - sum(kept[-1] for kept in times):
            break
    medians = [statistics.median(kept) for kept in times]
    if min(times[-1]) >= min(times[0]):  # a median alone may be luck on a busy machine
        medians[-1] = max(medians)
    return medians[0], medians[-1]


def _open(path: Path, threads: int, plans: _core.PlanSource | None) -> _core.Session:
    config = {"session.disable_prepacking": "1"}
    return create_session(path, threads=threads, config=config, plans=plans)
