"""Every matrix layer of a Stable Diffusion 1.5 step, against ONNX Runtime and PyTorch."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from benchmarks import timing
from benchmarks.micro.matrix import LAYERS, Layer, Prepared, make_data, peak_gflops
from benchmarks.report import Report, number
from textopia_fast import _core

COMPETITORS = ("textopia_bf16", "textopia_int8", "onnxruntime_fp32", "torch_bf16")
# of the float32 result: bfloat16 inputs, weights and outputs; int8 rounds both to 255 steps
ALLOWED_ERROR = {"textopia_int8": 0.025}
ALLOWED_ELSE = 0.01


def prepare(layer: Layer, threads: int) -> tuple[dict[str, Prepared], dict[str, str]]:
    """The competitors that can run, and why others cannot. All are compared before timing."""
    data = make_data(layer)
    ready, missing = {}, {}
    for name in COMPETITORS:
        try:
            module = importlib.import_module(f"benchmarks.matrix.{name}")
            ready[name] = module.prepare(layer, data, threads)
        except timing.NotInstalledError as error:
            missing[name] = str(error)
    exact = ready["onnxruntime_fp32"].result()
    for name, prepared in ready.items():
        error = np.linalg.norm(prepared.result() - exact) / np.linalg.norm(exact)
        if not error < ALLOWED_ERROR.get(name, ALLOWED_ELSE):
            raise AssertionError(f"{layer.name}, {name}: relative error {error:.2g}")
    return ready, missing


def measure(layer: Layer, threads: int, rounds: int) -> tuple[dict[str, timing.Times], dict]:
    """Milliseconds of one run each."""
    ready, missing = prepare(layer, threads)
    counts = {
        name: max(1, round(0.05 / max(prepared.seconds(1), 1e-6)))
        for name, prepared in ready.items()
    }
    runs = {
        name: lambda prepared=prepared, count=counts[name]: prepared.seconds(count) / count
        for name, prepared in ready.items()
    }
    return timing.alternate(runs, rounds, warm_up=1), missing


def run(quick: bool = False) -> Report:
    threads, unit = _core.usable_cpus(), _core.active_matrix_unit()
    layers = LAYERS[:: len(LAYERS) // 6] if quick else LAYERS
    peak = peak_gflops(unit)
    report = Report(
        "matrix",
        f"Matrix layers of a Stable Diffusion 1.5 step (512 x 512, batch 2), {threads} threads",
        ["layer", "per step", "ms", "GFLOP/s", "of peak", "int8", "vs ORT fp32", "vs torch bf16"],
    )
    totals: dict[str, float] = {}
    entries: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    for layer in layers:
        times, missing = measure(layer, threads, 3 if quick else 9)
        own = times["textopia_bf16"].median
        rate = layer.flops / own / 1e6
        quick_one = times.get("textopia_int8")
        faster = f"{number(own / quick_one.median)}x" if quick_one else "-"
        ratios = [
            f"{number(times[name].median / own)}x" if name in times else "-"
            for name in COMPETITORS[2:]
        ]
        share = f"{100 * rate / peak / threads:.0f} %" if peak else "-"
        report.add(layer.name, layer.count, number(own), number(rate), share, faster, *ratios)
        entries.append(
            {
                "layer": layer.name,
                "count": layer.count,
                "flops": layer.flops,
                "ms": {name: found.to_dict() for name, found in times.items()},
            }
        )
        for name, found in times.items():
            totals[name] = totals.get(name, 0.0) + found.median * layer.count
    flops = sum(layer.flops * layer.count for layer in layers)
    report.notes = [
        f'All columns are of bfloat16; "int8" is by how much {_core.int8_unit()} is faster.',
        f"Peak: {peak:.0f} GFLOP/s per core with {unit}, measured over random numbers in the "
        f"nearest cache; {threads} cores cannot do these layers in less than "
        f"{flops / peak / threads / 1e6:.0f} ms."
        if peak
        else f"Unit: {unit}; its peak was not measured (no compiler).",
        "Sum over a step: "
        + ", ".join(f"{name} {total:.0f} ms" for name, total in totals.items())
        + ".",
        *(f"{name}: {reason}." for name, reason in missing.items()),
    ]
    report.data = {"layers": entries, "peak_gflops": peak, "unit": unit, "threads": threads}
    return report
