"""The commands `compile` and `cache`, and what `inspect --coverage` adds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..checks import refuse
from ..devices import check_device
from ..errors import ConfigurationError
from ..graph.cache import EngineCache, default_cache_dir
from ..graph.engine import compile_directory, measure_coverage, measure_int8
from ..graph.tuning import TuningResult, tune_engine
from ..models import open_directory

__all__ = ["clean_cache", "compile_bar", "compile_model", "list_cache", "print_coverage"]


_TARGETS = {"cpu": "cpu-bf16", "cuda": "cuda-fp16"}


class Tuning(NamedTuple):
    """What --tune measures for; None: the model's own size, all CPUs."""

    size: tuple[int, int] | None
    threads: int | None


def compile_model(
    model: str,
    target: str | None,
    device: str | None,
    cache_dir: str | None,
    quiet: bool,
    tuning: Tuning | None = None,
) -> None:
    """Compiles a model into the cache, tunes it if asked to; prints where the engine is."""
    target = _target_of(target, device)
    if tuning is not None and target != "cpu-bf16":
        refuse("--tune", target, "is the target cpu-bf16", kind=ConfigurationError)
    directory = open_directory(model)
    started = time.perf_counter()
    with compile_bar(quiet) as progress:
        engine = compile_directory(directory, target, cache_dir, progress)
    if not quiet:
        for name, part in engine.parts.items():
            graphs = ", ".join(part.graphs)
            print(f"{name}: {part.share:.2%} of the arithmetic in fused operators ({graphs})")
            if part.int8 is not None:
                print("\n".join(_int8_lines(part.int8)))
        seconds = time.perf_counter() - started
        print(f"{_bytes(engine.bytes)} in {seconds:.1f} s")
    if tuning is not None:
        with compile_bar(quiet) as progress:
            results = tune_engine(
                engine, directory, size=tuning.size, threads=tuning.threads, progress=progress
            )
        if not quiet:
            _print_gains(results)
    print(engine.path)


def _print_gains(results: Sequence[TuningResult]) -> None:
    for result in results:
        before, after = 1e3 * result.seconds_before, 1e3 * result.seconds_after
        gain = f"{before:.4g} ms before, {after:.4g} ms after, {1 - after / before:.1%} less"
        if result.plans == 0:
            gain = f"{before:.4g} ms, nothing gained"
        print(f"{result.graph}: {gain} ({result.plans} plans for {result.shapes} shapes)")


def _target_of(target: str | None, device: str | None) -> str:
    if device is None:
        return _TARGETS["cpu"] if target is None else target
    if target is not None:
        refuse("device", device, "with a target is none", kind=ConfigurationError)
    return _TARGETS["cpu" if check_device(device) is None else "cuda"]


def list_cache(cache_dir: str | None, verify: bool) -> None:
    """One line per engine: size, target, last use, model, folder."""
    cache = _cache(cache_dir)
    entries = cache.entries("full" if verify else "size")
    for entry in entries:
        day = time.strftime("%Y-%m-%d", time.localtime(entry.used))
        state = "damaged" if entry.problem else entry.target
        print(f"{_bytes(entry.bytes):>8}  {state:10}  {day}  {entry.model:20}  {entry.path}")
    total = sum(entry.bytes for entry in entries)
    print(f"{len(entries)} engines, {_bytes(total)} in {cache.root}")


def clean_cache(cache_dir: str | None, keep_gigabytes: float) -> None:
    """Removes damaged engines and those unused longest; prints what went."""
    removed = _cache(cache_dir).prune(int(keep_gigabytes * 1e9))
    for entry in removed:
        print(f"removed {entry.path}")
    print(f"{len(removed)} engines, {_bytes(sum(entry.bytes for entry in removed))} freed")


def print_coverage(model: str, target: str | None = None) -> None:
    """How much of each graph's arithmetic fused operators take, and why not the rest."""
    directory = open_directory(model)
    place = "" if target is None else f" for {target}"
    print(f"\ncompiled{place} (fused operators, at the default size)")
    for name, part in directory.parts.items():
        found = measure_coverage(directory, part, target or "reference")
        fused = ", ".join(f"{count} {op}" for op, count in sorted(found.fused.items()))
        print(f"  {name}: {found.total / 1e9:,.4g} GFLOP, {found.share:.3%} fused: {fused}")
        for left in found.leftovers[:5]:
            share = left.flops / found.total
            if share >= 1e-6:
                print(f"    {share:.4%} in {left.count} {left.op}: {left.reason}")
    plan = measure_int8(directory) if target in (None, "cpu-int8") else None
    if plan is not None:
        print("\n".join(_int8_lines(plan.facts())))


def _int8_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"  unet with precision int8: {facts['layers']} layers, {facts['share']:.2%} of the "
        f"arithmetic of all layers; in bfloat16 stay"
    )
    for reason, count in sorted(facts["kept"].items()):
        yield f"    {count} {reason}"


def _cache(cache_dir: str | None) -> EngineCache:
    return EngineCache(default_cache_dir() if cache_dir is None else Path(cache_dir))


@contextmanager
def compile_bar(quiet: bool) -> Iterator[Any]:
    """A callback that draws a bar on stderr when that is a terminal, else None."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description:24}"),
        BarColumn(),
        TextColumn("{task.percentage:.0f} %"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=None)

        def report(part: str, done: int, total: int) -> None:
            bar.update(task, description=part, completed=done, total=total)

        yield report


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
