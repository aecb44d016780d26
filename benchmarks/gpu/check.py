"""Checks and times everything that runs on a GPU; see check.sh. Writes one JSON file per part.

python -m benchmarks.gpu.check kernels | parity | times | report   [--out FOLDER]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np

import textopia_fast as tx
from textopia_fast import _core, doctor
from textopia_fast.errors import ConfigurationError, TextopiaError

from .contest import table


def draw_noise(seeds: np.ndarray, draw: int, size: int) -> np.ndarray:
    from tests.rng.reference_philox import philox_normals

    return np.stack([philox_normals(int(seed), draw, size) for seed in seeds])


def check_kernels(options: argparse.Namespace) -> list[dict]:
    """Every compiled variant against its reference, on fresh random data."""
    from kernels import manifest

    from .launcher import Launcher, as_compiled, open_all

    gpu, architecture = open_all(options.kernels)
    launch = Launcher(gpu)
    rng = np.random.default_rng(options.seed)
    rows = []
    for variant in manifest.compiled():
        module = manifest.KERNELS[variant.kernel]
        extra = (draw_noise,) if variant.kernel in ("combine", "langevin_step") else ()
        compiled = as_compiled(variant, architecture)
        try:
            checks = list(module.check(launch, compiled, rng, *extra))
        except TextopiaError as error:
            rows.append({"name": variant.name, "passed": False, "error": str(error)})
            if gpu.is_lost:
                break
            continue
        worst = max(checks, key=lambda check: check.error / max(check.tolerance, 1e-30))
        rows.append(
            {
                "name": variant.name,
                "passed": all(check.passed for check in checks),
                "cases": len(checks),
                "worst": worst.case,
                "error": worst.error,
                "tolerance": worst.tolerance,
            }
        )
    return rows


def check_parity(options: argparse.Namespace) -> list[dict]:
    """The loop on the GPU against the loop on the CPU: the same requests, the bundled model."""
    prompt = "a red circle on a blue background"
    pipelines = {
        name: tx.Pipeline.from_pretrained("tiny-shapes", device=name) for name in ("cpu", "cuda")
    }
    rows = []
    for sampler, guidance, noise in (
        ("euler", 7.5, "torch"),
        ("dpmpp_2m", 5.0, "torch"),
        ("euler_ancestral", 7.5, "philox"),
        ("euler_ancestral", 7.5, "torch"),
        ("euler", 1.0, "torch"),
    ):
        given = {
            "sampler": sampler,
            "guidance_scale": guidance,
            "noise": noise,
            "seed": options.seed,
            "num_inference_steps": 20,
            "num_images_per_prompt": 2,
            "output_type": "latent",
        }
        results = {name: pipe(prompt, **given) for name, pipe in pipelines.items()}
        on_cpu, on_gpu = (results[name].images for name in ("cpu", "cuda"))
        error = float(np.abs(on_gpu - on_cpu).max() / np.abs(on_cpu).max())
        # The provider's float32 convolutions may use TF32, ten bits of mantissa.
        rows.append(
            {
                "name": f"tiny-shapes, {sampler}, guidance {guidance:g}, {noise} noise",
                "passed": bool(error < 2e-2),
                "error": error,
                "tolerance": 2e-2,
                "denoise_ms": {n: r.timings["denoise"] for n, r in results.items()},
            }
        )
    return rows


def measure_times(options: argparse.Namespace) -> list[dict]:
    """Median of 7 series per shape, event times of the GPU."""
    from .launcher import Launcher, as_compiled, open_all
    from .sizes import timed

    gpu, architecture = open_all(options.kernels)
    launch = Launcher(gpu, repeats=50)
    rng = np.random.default_rng(options.seed)
    rows = []
    for item in timed(rng, partial(as_compiled, architecture=architecture)):
        series = []
        for _ in range(7):
            launch(item.variant, item.grid, item.arguments)
            series.append(launch.milliseconds)
        seconds = statistics.median(series) / 1e3
        rows.append(
            {
                "name": item.case,
                "kernel": item.variant.name,
                "median_us": seconds * 1e6,
                "min_us": min(series) * 1e3,
                "max_us": max(series) * 1e3,
                "gb_per_s": item.bytes / seconds / 1e9,
                "tflop_per_s": item.flops / seconds / 1e12,
            }
        )
    return rows


def report(folder: Path, results: Path) -> int:
    """Puts the parts into one JSON and one Markdown file named after the GPU."""
    driver = _core.CudaDriver()
    facts = driver.devices[0]
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    contests = [record for name, record in found.items() if name.startswith("contest-")]
    parts = {name: rows for name, rows in found.items() if not name.startswith("contest-")}
    name = "gpu-" + "-".join(facts["name"].lower().replace("nvidia", "").split())
    document = {
        "gpu": facts,
        "cuda_driver": driver.version,
        "installation": {finding.name: finding.value for finding in doctor.examine()},
        "taken": time.strftime("%Y-%m-%d", time.gmtime()),
        "command": "benchmarks/gpu/check.sh",
        **parts,
        "contests": contests,
    }
    (results / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
    lines = [f"# {facts['name']}, CUDA {driver.version // 1000}.{driver.version % 1000 // 10}", ""]
    failed = 0
    for part, rows in parts.items():
        bad = [row for row in rows if row.get("passed") is False]
        failed += len(bad)
        if part == "times":
            lines += ["", "| shape | median µs | GB/s | TFLOP/s |", "|---|---|---|---|"]
            for row in rows:
                speeds = f"{row['gb_per_s']:.0f} | {row['tflop_per_s']:.1f}"
                lines.append(f"| {row['name']} | {row['median_us']:.1f} | {speeds} |")
            continue
        lines.append(f"* {part}: {len(rows) - len(bad)} of {len(rows)} passed")
        lines += [f"  * {row['name']}: {row}" for row in bad]
    if contests:
        lines += ["", "Medians of GPU event times, peers in turns on the same random weights.", ""]
        lines += table(contests)
    (results / f"{name}.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("architecture", "kernels", "parity", "times", "report"))
    parser.add_argument("--out", type=Path, required=True, help="folder of the parts")
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--kernels", type=Path, help="folder of archives")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    options = parser.parse_args()
    if options.part == "architecture":
        found = _core.CudaDriver().devices
        if not found:
            raise ConfigurationError("CUDA: the driver shows no device.")
        print(found[0]["architecture"])
        return 0
    if options.part == "report":
        return report(options.out, options.results)
    run = {"kernels": check_kernels, "parity": check_parity, "times": measure_times}[options.part]
    rows = run(options)
    (options.out / f"{options.part}.json").write_text(json.dumps(rows, indent=1) + "\n")
    bad = [row for row in rows if row.get("passed") is False]
    print(f"{options.part}: {len(rows)} rows, {len(bad)} failed (seed {options.seed})")
    for row in bad:
        print(f"  {row}")
    return 1 if bad else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except TextopiaError as error:
        sys.exit(str(error))
