"""One denoising step of Stable Diffusion 1.5 or XL at its true size, with guidance."""

from __future__ import annotations

from benchmarks.report import Report
from benchmarks.sd15 import onnxruntime_fp32, openvino_bf16
from benchmarks.sd15.case import find_model
from benchmarks.sd15.turns import compare
from benchmarks.unet_step import ours_bf16, ours_int8, torch_bf16, torch_compiled_bf16
from benchmarks.unet_step.case import Case
from textopia_fast import _core

COMPETITORS = (
    ours_bf16,
    ours_int8,
    onnxruntime_fp32,
    torch_bf16,
    torch_compiled_bf16,
    openvino_bf16,
)
COMPETITORS_XL = (ours_bf16, onnxruntime_fp32, openvino_bf16)


def run(quick: bool = False) -> Report:
    case = Case(find_model(), _core.usable_cpus())
    rounds, runs = (2, 1) if case.is_xl else (2, 3)
    if not case.is_xl:
        ours_int8.prepare(case.directory)
    report = compare(
        "unet_step",
        f"U-Net step of {case.title}, {case.threads} threads, {_core.active_matrix_unit()}",
        case,
        COMPETITORS_XL if case.is_xl else COMPETITORS,
        rounds=1 if quick else rounds,
        runs=1 if quick else runs,
    )
    report.task += "_xl" * case.is_xl
    share = ours_bf16.prepare(case.directory).parts["unet"].share
    report.notes += [
        "Ours is the body of the loop; prompt and timestep graphs run once per call, not per step.",
        f"{share:.3%} of the arithmetic is in fused operators.",
    ]
    return report
