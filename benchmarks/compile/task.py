"""`textopia-fast compile` of Stable Diffusion 1.5 into an empty cache: time and memory."""

from __future__ import annotations

import tempfile

from benchmarks.report import Report, number
from benchmarks.sd15.case import find_model
from benchmarks.sd15.child import command, watch
from benchmarks.sd15.ours_bf16 import TARGET
from benchmarks.timing import NotInstalledError
from textopia_fast import _core


def run(quick: bool = False) -> Report:
    directory = find_model()
    if not (directory / "model_index.json").is_file():
        raise NotInstalledError("a whole pipeline is needed")
    report = Report(
        "compile",
        f"textopia-fast compile of Stable Diffusion 1.5, empty cache, {_core.usable_cpus()} CPUs",
        ["target", "seconds", "peak GB", "own peak GB"],
    )
    with tempfile.TemporaryDirectory() as cache:
        given = ("compile", directory, "--target", TARGET, "--cache-dir", cache, "--quiet")
        done = watch(command("textopia_fast", *given))
    memory = (done.peak_bytes, done.own_peak_bytes)
    report.add(TARGET, number(done.seconds), *(number(value / 1e9) for value in memory))
    report.data[TARGET] = {
        "seconds": done.seconds,
        "peak_bytes": done.peak_bytes,
        "own_peak_bytes": done.own_peak_bytes,
    }
    report.notes.append(
        "One process, from its start: U-Net, VAE and text encoder, checksums of the export, packed "
        "weights written and seen to the disk. Peak with pages of mapped files, own without."
    )
    return report
