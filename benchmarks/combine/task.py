"""GB/s of the fused update, by instruction set, and of a copy that moves as many bytes."""

from __future__ import annotations

from benchmarks.micro import combine
from benchmarks.report import Report, number


def run(quick: bool = False) -> Report:
    result = combine.run(budget_bytes=2e8 if quick else 4e9)
    isas = list(result["combine"][0]["isas"])
    report = Report(
        "combine",
        "Fused update: GB/s read and written, and share of a copy's speed",
        ["latent", "sources", "outputs", "copy", *isas],
    )
    for entry in result["combine"]:
        kilobytes = entry["count"] * 4 // 1024
        size = f"{kilobytes} KB" if kilobytes < 1024 else f"{kilobytes // 1024} MB"
        cells = [
            f"{number(found['gb_per_s'])} ({100 * found['of_copy']:.0f} %)"
            for found in entry["isas"].values()
        ]
        copy = number(entry["copy_gb_per_s"])
        report.add(size, entry["sources"], entry["outputs"], copy, *cells)
    noise = ", ".join(f"{name} {value} ns" for name, value in result["noise_ns_per_normal"].items())
    report.notes = [
        "The results of all instruction sets are compared bit for bit before timing.",
        f"Noise, one thread, {result['active_isa']}, per normal number: {noise}.",
    ]
    report.data = result
    return report
