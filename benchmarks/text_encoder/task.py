"""The text encoder of Stable Diffusion 1.5 (CLIP-L) at its true size, one prompt."""

from __future__ import annotations

from benchmarks.report import Report
from benchmarks.sd15 import onnxruntime_fp32, openvino_bf16, ours_bf16
from benchmarks.sd15.case import find_model
from benchmarks.sd15.turns import compare
from benchmarks.text_encoder.case import Case
from textopia_fast import _core

COMPETITORS = (ours_bf16, onnxruntime_fp32, openvino_bf16)


def run(quick: bool = False) -> Report:
    case = Case(find_model(), _core.usable_cpus())
    return compare(
        "text_encoder",
        f"Text encoder of Stable Diffusion 1.5 (CLIP-L), one prompt of {case.tokens} tokens, "
        f"{case.threads} threads, {_core.active_matrix_unit()}",
        case,
        COMPETITORS,
        rounds=1 if quick else 5,
        runs=10 if quick else 30,
    )
