"""Makes docs/samplers.md and its two figures from the registry: python docs/make_samplers.py

Needs the docs extra (matplotlib). Everything is computed from the traced programs in float64; takes
about a minute.
"""

from __future__ import annotations

import itertools
import string
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]
matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402 - after the choice of backend
from tests.langevin.mixture import PLANE, Mixture  # noqa: E402

import textopia_fast as tx  # noqa: E402
from textopia_fast.errors import TextopiaError  # noqa: E402
from textopia_fast.schedules.levels import explicit  # noqa: E402
from textopia_fast.tracing.program import Clamp, Combine, Denoise, LangevinStep  # noqa: E402
from textopia_fast.tracing.reference import run  # noqa: E402

FIGURES = ROOT / "docs" / "figures"
SIGMA_MAX, SIGMA_MIN = 10.0, 0.02
PANEL_STEPS = 10
CONVERGENCE_STEPS = (4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
POINTS = 256  # trajectories of the deterministic samplers
DRAWS = 8192  # samples of the random ones
REFERENCE = "probability_flow"  # of fourth order
REFERENCE_STEPS = 512
# Their latents live in another frame, or their network is of another kind.
NOT_COMPARED = (
    *("flow_euler", "flow_heun", "lcm", "tcd"),
    *(name for name in tx.samplers.SAMPLERS if name.endswith("_cfg_pp")),
)
OPTIONS = {"predictor_corrector": {"norm": "batch"}}  # norms of two numbers say little
STYLE = {"font.size": 8, "axes.spines.top": False, "axes.spines.right": False}


def levels(steps: int) -> list[float]:
    """Karras levels from SIGMA_MAX to SIGMA_MIN: the last is above 0, where the score exists."""
    ramp = np.linspace(SIGMA_MAX ** (1 / 7), SIGMA_MIN ** (1 / 7), steps + 1)
    return list(ramp**7)


def program_of(name: str, steps: int) -> tx.samplers.Program | None:
    """The program on those levels for an epsilon network that is told sigma; None: not possible."""
    try:
        schedule = explicit(levels(steps))
        return tx.samplers.trace(name, schedule, prediction="epsilon", **OPTIONS.get(name, {}))
    except TextopiaError:
        return None


def network(mixture: Mixture) -> Callable[[np.ndarray, float], np.ndarray]:
    """The exact epsilon of the mixture at x / sqrt(1 + sigma^2)."""

    def epsilon(scaled: np.ndarray, sigma: float) -> np.ndarray:
        x = scaled * np.sqrt(1.0 + sigma**2)
        return -sigma * mixture.smoothed(sigma).score(x)

    return epsilon


def start(count: int) -> np.ndarray:
    return PLANE.smoothed(SIGMA_MAX).draw(count, seed=1)


def sampled(program: tx.samplers.Program, x: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(2)
    return run(program, network(PLANE), x, lambda: rng.standard_normal(x.shape))


def expand(program: tx.samplers.Program) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(levels, weights, noise): what each network run, and each draw, weighs in the final sample.

    A linear program is followed with one unit vector per network run and per draw in the place of
    the latents.
    """
    runs, draws = program.denoise_count, program.draw_count
    basis = np.eye(1 + runs + draws)
    registers = {("x", 0): basis[0]}
    done = drawn = 0
    for i in program.instructions:
        if type(i) is Denoise:
            registers[i.dst] = registers["u", i.dst.index] = basis[1 + done]
            done += 1
        elif type(i) is Combine:
            total = sum(weight * registers[register] for register, weight in i.terms)
            if i.noise:
                total = total + i.noise * basis[1 + runs + drawn]
                drawn += 1
            registers[i.dst] = total
        elif isinstance(i, (Clamp, LangevinStep)):
            raise ValueError("not linear")
    total = registers[program.result]
    return np.array(program.noise_levels), total[1 : 1 + runs], total[1 + runs :]


def draw_weights(path: Path) -> list[str]:
    """One panel per sampler; returns the names drawn."""
    found = {}
    for name in tx.samplers.SAMPLERS:
        program = program_of(name, PANEL_STEPS)
        if program is None:
            continue
        try:
            found[name] = expand(program)
        except ValueError:
            continue
    columns = 6
    rows = -(-len(found) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(11, 1.55 * rows), squeeze=False)
    for axis, (name, (told, weights, noise)) in zip(axes.flat, found.items(), strict=False):
        axis.axhline(0, color="0.8", lw=0.6)
        axis.vlines(range(len(told)), 0, weights, color="C0", lw=2)
        if noise.size:
            places = np.linspace(0, len(told) - 1, len(noise))
            axis.plot(places, np.abs(noise), ".", color="C1", ms=3)
        axis.set_yscale("symlog", linthresh=0.1)
        axis.set_title(name, fontsize=8, pad=2)
        axis.tick_params(labelsize=6)
        axis.set_xticks([0, len(told) - 1])
    for axis in axes.flat[len(found) :]:
        axis.set_axis_off()
    figure.suptitle(
        f"What each network run (bars) and each draw of noise (dots) weighs in the sample, "
        f"{PANEL_STEPS} steps, sigma {SIGMA_MAX:g} to {SIGMA_MIN:g}",
        fontsize=9,
    )
    figure.tight_layout(rect=(0, 0, 1, 0.98))
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return list(found)


def sliced_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Wasserstein-2 distance between equally many points, mean over 32 directions of the plane."""
    angles = np.linspace(0, np.pi, 32, endpoint=False)
    directions = np.stack([np.cos(angles), np.sin(angles)])
    gaps = np.sort(a @ directions, axis=0) - np.sort(b @ directions, axis=0)
    return float(np.sqrt((gaps**2).mean()))


def draw_convergence(path: Path) -> dict[str, float]:
    """Error against network runs; returns the measured order of each deterministic sampler."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5))
    x, many = start(POINTS), start(DRAWS)
    reference = program_of(REFERENCE, REFERENCE_STEPS)
    assert reference is not None
    exact = sampled(reference, x)
    target = PLANE.smoothed(SIGMA_MIN).draw(DRAWS, seed=3)
    orders = {}
    styles = {
        axis: itertools.product(("-", "--", ":"), plt.get_cmap("tab10").colors)
        for axis in (left, right)
    }
    for name in [n for n in tx.samplers.SAMPLERS if n not in NOT_COMPARED]:
        runs, errors, is_random = [], [], False
        for steps in CONVERGENCE_STEPS:
            program = program_of(name, steps)
            if program is None:
                continue
            is_random = program.draw_count > 0
            with np.errstate(all="ignore"):
                if is_random:
                    error = sliced_distance(sampled(program, many), target)
                else:
                    error = float(np.sqrt(((sampled(program, x) - exact) ** 2).mean()))
            runs.append(program.denoise_count)
            errors.append(error if np.isfinite(error) else np.nan)
        if not runs:
            continue
        axis = right if is_random else left
        line, color = next(styles[axis])
        axis.loglog(runs, errors, line, marker=".", color=color, lw=0.9, ms=3, label=name)
        if not is_random:
            orders[name] = -np.polyfit(np.log(runs[-4:]), np.log(errors[-4:]), 1)[0]
    floor = sliced_distance(PLANE.smoothed(SIGMA_MIN).draw(DRAWS, seed=4), target)
    right.axhline(floor, color="0.6", ls=":", label="two exact sets")
    left.set_title("deterministic: root mean square error of the trajectories' ends")
    right.set_title(f"random: sliced Wasserstein-2 distance of {DRAWS} samples to exact ones")
    for axis in (left, right):
        axis.set_xlabel("network runs")
        axis.grid(alpha=0.3, which="both", lw=0.4)
        axis.legend(fontsize=6, ncol=2)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return orders


def table(orders: dict[str, float]) -> str:
    rows = ["| sampler | one step | when | order | source |", "|---|---|---|--:|---|"]
    for name, info in (tx.samplers.SAMPLERS | tx.samplers.STEP_BY_STEP).items():
        order = f"{orders[name]:.1f}" if name in orders else ""
        when = info.summary if name in tx.samplers.SAMPLERS else f"step by step: {info.summary}"
        rows.append(f"| `{name}` | {info.update} | {when} | {order} | {info.paper} |")
    return "\n".join(rows)


def main() -> None:
    FIGURES.mkdir(exist_ok=True)
    with plt.rc_context(STYLE):
        drawn = draw_weights(FIGURES / "weights.png")
        orders = draw_convergence(FIGURES / "convergence.png")
    not_drawn = [name for name in tx.samplers.SAMPLERS if name not in drawn]
    template = string.Template((ROOT / "docs" / "samplers.template.md").read_text())
    text = template.substitute(
        table=table(orders),
        sigma_max=f"{SIGMA_MAX:g}",
        sigma_min=f"{SIGMA_MIN:g}",
        reference=REFERENCE,
        reference_steps=REFERENCE_STEPS,
        not_compared=", ".join(f"`{name}`" for name in NOT_COMPARED),
        not_drawn=", ".join(f"`{name}`" for name in not_drawn),
    )
    (ROOT / "docs" / "samplers.md").write_text(text)


if __name__ == "__main__":
    main()
