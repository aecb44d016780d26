"""The VAE decoder of Stable Diffusion 1.5 at its true size, one picture."""

from __future__ import annotations

from benchmarks.report import Report
from benchmarks.sd15 import onnxruntime_fp32, openvino_bf16, ours_bf16
from benchmarks.sd15.case import find_model
from benchmarks.sd15.turns import compare
from benchmarks.vae_decode import torch_bf16
from benchmarks.vae_decode.case import Case
from textopia_fast import _core

COMPETITORS = (ours_bf16, onnxruntime_fp32, torch_bf16, openvino_bf16)


def run(quick: bool = False) -> Report:
    case = Case(find_model(), _core.usable_cpus())
    return compare(
        "vae_decode",
        f"VAE decoder of Stable Diffusion 1.5, 512x512, {case.threads} threads, "
        f"{_core.active_matrix_unit()}",
        case,
        COMPETITORS,
        rounds=1 if quick else 2,
        runs=1 if quick else 2,
    )
