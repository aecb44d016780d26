"""The fused update against a copy of as many bytes, per instruction set.

`run()` returns plain data; `python -m benchmarks.micro.combine` prints it as JSON.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from textopia_fast import _core

# (sources, outputs): an Euler step, one with history, guidance with noise and both halves' inputs.
FORMS = ((2, 1), (3, 1), (5, 3))

# Elements of a latent: 512 x 512 pixels at batch 1, at batch 16, and 16 MB.
COUNTS = (16_384, 262_144, 4_194_304)


def aligned(count: int, rng: np.random.Generator) -> np.ndarray:
    """float32 [count] at a multiple of 64 bytes."""
    memory = np.empty(count + 16, np.float32)
    begin = (-memory.ctypes.data % 64) // 4
    array = memory[begin : begin + count]
    array[:] = rng.standard_normal(count, dtype=np.float32)
    return array


def times(functions: Sequence[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Seconds of each function in each round; in turns, so that a busy machine is fair to all."""
    for function in functions:
        function()
    seconds: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, own in zip(functions, seconds, strict=True):
            begin = time.perf_counter()
            function()
            own.append(time.perf_counter() - begin)
    return seconds


def call_overhead(isa: str, source_count: int, output_count: int) -> float:
    """Seconds of a call on one element: what Python and the checks of arguments cost."""
    sources = [np.zeros(1, np.float32) for _ in range(source_count)]
    outputs = [np.zeros(1, np.float32) for _ in range(output_count)]
    weights, scales = [1.0] * source_count, [1.0] * output_count

    def call() -> object:
        return _core.combine(isa, sources, weights, scales, outputs)

    return statistics.median(times([call], 1000)[0])


def measure(count: int, source_count: int, output_count: int, rounds: int) -> dict[str, Any]:
    """One form at one size: GB/s (medians) of each ISA and of a copy that moves the same bytes."""
    rng = np.random.default_rng(0)
    sources = [aligned(count, rng) for _ in range(source_count)]
    outputs = [aligned(count, rng) for _ in range(output_count)]
    weights = rng.uniform(0.1, 0.9, source_count).tolist()
    scales = [1.0, 0.5, 0.5][:output_count]
    isas = _core.supported_isas()

    expected = None
    for isa in isas:  # validate before timing
        if not _core.combine(isa, sources, weights, scales, outputs):
            raise AssertionError(f"combine {isa}: not finite")
        bits = [output.tobytes() for output in outputs]
        expected = expected or bits
        if bits != expected:
            raise AssertionError(f"combine {isa}: differs from {isas[0]}")

    byte_count = 4 * count * (source_count + output_count)
    copy_from, copy_to = (aligned(byte_count // 8, rng) for _ in range(2))
    functions: list[Callable[[], object]] = [lambda: np.copyto(copy_to, copy_from)]
    for isa in isas:
        functions.append(lambda isa=isa: _core.combine(isa, sources, weights, scales, outputs))
    seconds = times(functions, rounds)
    copy_gbs = byte_count / statistics.median(seconds[0]) / 1e9
    result: dict[str, Any] = {
        "count": count,
        "sources": source_count,
        "outputs": output_count,
        "bytes": byte_count,
        "copy_gb_per_s": round(copy_gbs, 2),
        "isas": {},
    }
    for isa, own in zip(isas, seconds[1:], strict=True):
        overhead = call_overhead(isa, source_count, output_count)
        middle = max(statistics.median(own) - overhead, 1e-9)
        low, high = np.quantile(own, [0.25, 0.75])
        result["isas"][isa] = {
            "us": round(middle * 1e6, 3),
            "us_quartiles": [round(float(low) * 1e6, 3), round(float(high) * 1e6, 3)],
            "gb_per_s": round(byte_count / middle / 1e9, 2),
            "of_copy": round(byte_count / middle / 1e9 / copy_gbs, 3),
        }
    return result


def measure_noise(count: int, rounds: int) -> dict[str, float]:
    """Nanoseconds per normal of each stream, with the active ISA."""
    makers = ("torch", "philox", "cuda")
    streams = [getattr(_core.NoiseStream, name)([1]) for name in makers]
    functions = [lambda stream=stream: stream.draw(1, count) for stream in streams]
    medians = [statistics.median(own) for own in times(functions, rounds)]
    return {name: round(own / count * 1e9, 3) for name, own in zip(makers, medians, strict=True)}


def run(counts: Sequence[int] = COUNTS, budget_bytes: float = 4e9) -> dict[str, Any]:
    """All forms at all sizes, and the noise streams.

    Args:
        counts: Elements per latent.
        budget_bytes: Bytes that each function may move per form and size; sets the rounds.

    Returns:
        `combine`: one entry per form and size (GB/s, microseconds without the cost of the call
        from Python, share of the speed of a copy); `noise_ns_per_normal`; `active_isa`.
    """
    entries = []
    for count in counts:
        for source_count, output_count in FORMS:
            byte_count = 4 * count * (source_count + output_count)
            rounds = int(min(1000, max(7, budget_bytes / byte_count)))
            entries.append(measure(count, source_count, output_count, rounds))
    return {
        "combine": entries,
        "noise_ns_per_normal": measure_noise(16_384, 200),
        "active_isa": _core.active_isa(),
    }


def main() -> None:
    print(json.dumps(run(), indent=1))


if __name__ == "__main__":
    main()
