"""Pictures of the bundled model in every precision of this machine, against those of fp32."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from benchmarks.report import Report, number
from textopia_fast import Pipeline, _core

TRAINING = Path(__file__).parents[2] / "training"
STEPS, GUIDANCE, BATCH = 20, 4.0, 8
UNITS = {"bf16": _core.active_matrix_unit, "int8": _core.int8_unit}


def run(quick: bool = False) -> Report:
    sys.path.append(str(TRAINING))  # its files import each other by name
    from evaluate import accuracies, held_out_prompts

    scenes, prompts = held_out_prompts(16 if quick else 96)
    report = Report(
        "picture_error",
        f"tiny-shapes, {STEPS} steps, {len(prompts)} prompts that no training picture showed",
        ["precision", "unit", "worst PSNR, dB", "median PSNR, dB", "all attributes right"],
    )
    exact = None
    for precision in ("fp32", *UNITS):
        unit = UNITS[precision]() if precision in UNITS else ""
        if unit == "scalar":
            report.notes.append(f"{precision}: no unit for it here.")
            continue
        pictures = draw(precision, prompts)
        right = accuracies(scenes, np.round(255 * pictures).astype(np.uint8))["all"]
        if exact is None:
            exact, found = pictures, None
        else:
            found = -10 * np.log10(np.mean((pictures - exact) ** 2, axis=(1, 2, 3)))
        shown = ["-", "-"] if found is None else [number(found.min()), number(np.median(found))]
        report.add(precision, unit, *shown, f"{right:.1%}")
        report.data[precision] = {
            "psnr": None if found is None else found.tolist(),
            "accuracy": right,
        }
    report.notes.append("PSNR of each picture against the same picture in fp32.")
    return report


def draw(precision: str, prompts: list[str]) -> np.ndarray:
    """float32 [N, H, W, 3], 0 to 1; equal seeds in every precision."""
    pipe = Pipeline.from_pretrained("tiny-shapes", precision=precision)
    pictures = [
        pipe(
            prompts[start : start + BATCH],
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            seed=start,
            output_type="np",
        ).images
        for start in range(0, len(prompts), BATCH)
    ]
    return np.concatenate(pictures)
