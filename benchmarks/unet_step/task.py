"""One denoising step of Stable Diffusion 1.5 at its true size, with guidance."""

from __future__ import annotations

from benchmarks.report import Report
from benchmarks.sd15 import onnxruntime_fp32, openvino_bf16
from benchmarks.sd15.case import find_model
from benchmarks.sd15.turns import compare
from benchmarks.unet_step import ours_bf16, ours_int8, torch_bf16
from benchmarks.unet_step.case import Case
from textopia_fast import _core

COMPETITORS = (ours_bf16, ours_int8, onnxruntime_fp32, torch_bf16, openvino_bf16)


def run(quick: bool = False) -> Report:
    case = Case(find_model(), _core.usable_cpus())
    ours_int8.prepare(case.directory)
    report = compare(
        "unet_step",
        f"U-Net step of Stable Diffusion 1.5, 512x512, batch 2, {case.threads} threads, "
        f"{_core.active_matrix_unit()}",
        case,
        COMPETITORS,
        rounds=1 if quick else 3,
        runs=1 if quick else 3,
    )
    report.notes.append(
        "Ours is the body of the loop; prompt and timestep graphs run once per call, not per step."
    )
    return report
