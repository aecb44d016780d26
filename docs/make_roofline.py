"""Draws docs/figures/roofline.png from a kept result of `benchmarks/run.py matrix`.

    python docs/make_roofline.py benchmarks/results/matrix-MACHINE.json

Needs the docs extra (matplotlib). Each layer is a point: arithmetic per byte that it has to touch
at least, and what it reaches. The roof is what the machine can do at most, both parts measured.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

FIGURE = Path(__file__).parent / "figures" / "roofline.png"
STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
MARKERS = {"conv": "o", "upsample": "^", "linear": "s", "geglu": "D", "attention": "*"}
LABELS = {
    "conv": "convolution 3x3",
    "upsample": "convolution after enlargement",
    "linear": "linear, convolution 1x1",
    "geglu": "GEGLU",
    "attention": "attention",
}
OURS = "textopia_bf16"


def draw(report: dict[str, Any], path: Path) -> None:
    """Writes the picture of one machine."""
    data = report["data"]
    peak, memory = data["peak_gflops"], data["memory_gbs"]
    if not peak or not memory:
        raise SystemExit("the result has no ceilings: no compiler was there when it was measured")
    roof = peak * data["threads"]
    points = [
        (layer, layer["flops"] / layer["bytes"], layer["flops"] / layer["ms"][OURS]["median"] / 1e6)
        for layer in data["layers"]
    ]
    left = 0.7 * min(x for _, x, _ in points)
    right = 1.4 * max(x for _, x, _ in points)
    ridge = roof / memory
    figure, axes = plt.subplots(figsize=(9, 5.2))
    axes.loglog([left, ridge], [left * memory, roof], color="0.45")
    axes.loglog([ridge, right], [roof, roof], color="0.2")
    axes.annotate(
        f"{roof:.0f} GFLOP/s: {data['threads']} x {data['unit']}",
        *((right, roof), (-4, 5)),
        textcoords="offset points",
        ha="right",
    )
    axes.annotate(
        f"{memory:.0f} GB/s of memory",
        *((left, left * memory), (6, 26)),
        textcoords="offset points",
        color="0.3",
    )
    colors = {"U-Net step": "tab:blue", "VAE decoder": "tab:orange"}
    for kind, marker in MARKERS.items():
        for network, color in colors.items():
            own = [p for p in points if (p[0]["kind"], p[0]["network"]) == (kind, network)]
            # The area says how much of the network's time the layer takes.
            sizes = [14 + 0.6 * layer["count"] * layer["ms"][OURS]["median"] for layer, _, _ in own]
            axes.scatter(
                [x for _, x, _ in own],
                [y for _, _, y in own],
                s=sizes,
                marker=marker,
                color=color,
                alpha=0.65,
                linewidths=0,
            )
    for kind, marker in MARKERS.items():
        axes.scatter([], [], marker=marker, color="0.4", label=LABELS[kind])
    for network, color in colors.items():
        axes.scatter([], [], marker="o", color=color, label=network)
    axes.legend(loc="lower right", frameon=False)
    axes.set_xlim(left, right)
    axes.set_ylim(0.6 * min(y for _, _, y in points), 1.5 * roof)
    axes.set_xlabel("FLOP per byte of inputs, weights and outputs")
    axes.set_ylabel("GFLOP/s")
    machine = report["machine"]
    axes.set_title(
        f"Layers of Stable Diffusion 1.5, 512x512, bfloat16: {machine['cpu']}, "
        f"{data['threads']} threads, {machine['date'][:10]}"
    )
    figure.tight_layout()
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    with plt.rc_context(STYLE):
        draw(json.loads(Path(sys.argv[1]).read_text()), FIGURE)


if __name__ == "__main__":
    main()
