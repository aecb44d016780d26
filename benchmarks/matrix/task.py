"""Every matrix layer of Stable Diffusion 1.5, against ONNX Runtime and PyTorch."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import timing
from benchmarks.matrix.layers import DECODER, LAYERS, UNET, Layer, Prepared, make_data
from benchmarks.micro.matrix import memory_gbs, peak_gflops
from benchmarks.report import Report, number
from textopia_fast import _core

COMPETITORS = ("textopia_bf16", "textopia_int8", "onnxruntime_fp32", "torch_bf16")
# of the float32 result: bfloat16 inputs, weights and outputs; int8 rounds both to 255 steps
ALLOWED_ERROR = {"textopia_int8": 0.025}
ALLOWED_ELSE = 0.01
EXPLAINED = 0.45  # below this share of the ceiling, a note says why


@dataclass(frozen=True)
class Ceilings:
    """What the machine can do at most.

    Attributes:
        peak: GFLOP/s of all threads, out of registers.
        memory: GB/s that all threads read.
    """

    peak: float
    memory: float

    def of(self, layer: Layer) -> float:
        """GFLOP/s that this layer can reach: by arithmetic, or by the memory that it touches."""
        return min(self.peak, self.memory * layer.flops / layer.bytes)


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


def reason(layer: Layer) -> str:
    """What in the shape of a layer keeps the unit from being busy, where something does.

    A slow run alone is no reason: a busy machine makes any layer slow.
    """
    first, channels, columns = layer.sizes[:3]
    if layer.kind == "attention":
        if channels < 256:  # keys
            return "few keys: packing queries and storing results weigh as much as the products"
        return "the ceiling knows no softmax, a fifth of the floor at width 40 and less above"
    if columns < 32:
        return f"{columns} output channels in a panel of 32: the other columns are padding"
    if channels < 32:
        return f"{channels} input channels: a pixel is packed for {9 * channels} products"
    rows = first if layer.kind in ("linear", "geglu") else layer.batch * layer.out_side**2
    if rows <= 256:
        return f"{rows} rows for each weight, so that memory or the last cache may be the limit"
    return "nothing in its shape says why; repeat it on a quiet machine"


def run(quick: bool = False) -> Report:
    threads, unit = _core.usable_cpus(), _core.active_matrix_unit()
    layers = LAYERS[:: len(LAYERS) // 8] if quick else LAYERS
    peak, memory = peak_gflops(unit), memory_gbs(threads)
    ceilings = Ceilings(peak * threads, memory) if peak and memory else None
    report = Report(
        "matrix",
        f"Matrix layers of Stable Diffusion 1.5 (512 x 512), {threads} threads, {unit}",
        ["layer", "runs", "ms", "TFLOP/s", "of ceiling", "int8", "vs ORT fp32", "vs torch bf16"],
    )
    entries: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    explained: list[str] = []
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
        share = rate / ceilings.of(layer) if ceilings else None
        name = layer.name if layer.network == UNET else f"{layer.name} (VAE)"
        shown = "-" if share is None else f"{share:.0%}"
        report.add(name, layer.count, number(own), number(rate / 1e3), shown, faster, *ratios)
        entries.append(
            {
                "layer": layer.name,
                "kind": layer.kind,
                "network": layer.network,
                "count": layer.count,
                "flops": layer.flops,
                "bytes": layer.bytes,
                "ceiling_gflops": ceilings.of(layer) if ceilings else None,
                "ms": {name: found.to_dict() for name, found in times.items()},
            }
        )
        if share is not None and share < EXPLAINED:
            explained.append(f"{name}, {share:.0%}: {reason(layer)}.")
    report.notes = [
        *_notes(ceilings, peak, threads, unit),
        f'"int8": by how much {_core.int8_unit()} is faster; all other columns are of bfloat16.',
        *(_sum(network, entries) for network in (UNET, DECODER)),
        *explained,
        *(f"{name}: {text}." for name, text in missing.items()),
    ]
    report.data = {
        "layers": entries,
        "peak_gflops": peak,
        "memory_gbs": memory,
        "unit": unit,
        "threads": threads,
    }
    return report


def _notes(
    ceilings: Ceilings | None, peak: float | None, threads: int, unit: str
) -> tuple[str, ...]:
    if ceilings is None:
        return (f"Unit: {unit}; the ceilings were not measured (no compiler).",)
    return (
        f"Ceiling: {peak:.0f} GFLOP/s per core ({unit}, random numbers in the nearest cache) times "
        f"{threads}, or {ceilings.memory:.0f} GB/s of memory where that is less for the bytes of a "
        "layer, each once.",
        "An upsample layer is counted with the arithmetic that it needs, 4 of 9 products.",
    )


def _sum(network: str, entries: list[dict[str, Any]]) -> str:
    """Milliseconds of all layers of a network, for each competitor."""
    own = [entry for entry in entries if entry["network"] == network]
    totals = {
        name: sum(entry["ms"][name]["median"] * entry["count"] for entry in own)
        for name in COMPETITORS
        if own and all(name in entry["ms"] for entry in own)
    }
    flops = sum(entry["flops"] * entry["count"] for entry in own)
    shown = ", ".join(f"{name} {total:.0f} ms" for name, total in totals.items())
    return f"Sum of the {network}, {flops / 1e9:.0f} GFLOP: {shown}."
