"""Trajectories of diffusers and k-diffusion, as recorded by tests/golden/make_sampler_goldens.py.

They keep sigmas and latents in float32. 1e-4 of the largest latent is what that is worth over a
whole run, and the way down from much larger latents (4096 at zero terminal SNR) adds its rounding.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.golden import sampler_cases
from tests.golden.sampler_cases import Case, Draws, initial_noise
from tests.samplers.helpers import numpy_network
from textopia_fast.samplers import Plan, Program, from_config, schedules, trace, trace_plan
from textopia_fast.tracing.reference import run

GOLDEN = Path(sampler_cases.__file__).with_name("sampler_trajectories.npz")
AGAIN = "Regenerate with python -m tests.golden.make_sampler_goldens and look at the difference."
FLOAT32_EPS = float(np.finfo(np.float32).eps)
# float32 leaves 1 - alpha_bar = 1e-4 with an error of 1e-3 at worst: so accurate are their sigmas
SIGMA_RTOL = 1e-3
PARTS = ("trajectory", "timesteps", "sigmas", "init")
DIFFUSERS = sampler_cases.diffusers_cases()
K_DIFFUSION = sampler_cases.k_diffusion_cases()


@lru_cache(maxsize=1)
def goldens() -> dict[str, dict[str, np.ndarray]]:
    with np.load(GOLDEN) as file:
        index = json.loads(str(file["index"]))
        flat = {part: file[part] for part in PARTS}
    at = dict.fromkeys(PARTS, 0)
    entries: dict[str, dict[str, np.ndarray]] = {}
    for row in index:
        entry = entries[row["name"]] = {}
        for part in PARTS:
            size = int(np.prod(row[part]))
            entry[part] = flat[part][at[part] : at[part] + size].reshape(row[part])
            at[part] += size
    return entries


def golden(case: Case) -> dict[str, np.ndarray]:
    assert case.name in goldens(), f"{case.name} was not recorded. {AGAIN}"
    return goldens()[case.name]


def latents_by_run(program: Program, scales: Any) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """The result, and the latents at each STEP by the number of network runs until then."""
    draw = Draws()
    runs = 0
    shown: dict[int, np.ndarray] = {}

    def counted(x: np.ndarray, noise_level: float) -> np.ndarray:
        nonlocal runs
        runs += 1
        return numpy_network(x, noise_level)

    x = initial_noise().astype(np.float64) * program.initial_scale
    result = run(
        program,
        counted,
        x,
        lambda: draw().astype(np.float64),
        on_step=lambda i, x, _: shown.update({runs - 1: x * scales[i]}),
    )
    return result, shown


def check_trajectory(plan: Plan, expected: dict[str, np.ndarray]) -> None:
    program = trace_plan(plan)
    np.testing.assert_allclose(
        program.noise_levels, expected["timesteps"], rtol=2e-5, atol=5e-3, err_msg=AGAIN
    )
    result, shown = latents_by_run(program, plan.latent_scales)
    np.testing.assert_array_equal(result, shown[max(shown)])
    largest = program.initial_scale * np.abs(initial_noise()).max() if not plan.vp_latents else 1.0
    for index, x in shown.items():
        reference = expected["trajectory"][index]
        allowed = 1e-4 * np.abs(reference).max() + 2 * FLOAT32_EPS * largest
        error = np.abs(x - reference).max()
        assert error < allowed, f"network run {index}: {error:.2e}, allowed {allowed:.2e}. {AGAIN}"


@pytest.mark.parametrize("case", DIFFUSERS, ids=[case.name for case in DIFFUSERS])
def test_diffusers_trajectory(case: Case) -> None:
    expected = golden(case)
    options = dict(case.options)
    eta, mu = options.pop("eta", 0.0), options.pop("mu", None)
    config = {"_class_name": case.source, **case.config}
    plan = from_config(config, case.steps, eta=eta, mu=mu, sampler_options=options)
    check_trajectory(plan, expected)
    if plan.vp_latents:
        assert expected["init"] == 1.0
    else:
        np.testing.assert_allclose(plan.schedule.initial_scale, expected["init"][0], SIGMA_RTOL)
    flow = (
        case.source.startswith("FlowMatch") or "use_flow_sigmas" in case.config
    )  # whose sigmas are the times of the flow
    if expected["sigmas"].size == len(plan.schedule.sigmas) and not flow:
        np.testing.assert_allclose(plan.schedule.sigmas, expected["sigmas"], SIGMA_RTOL)


@pytest.mark.parametrize("case", K_DIFFUSION, ids=[case.name for case in K_DIFFUSION])
def test_k_diffusion_result(case: Case) -> None:
    expected = golden(case)
    config = dict(case.config)
    build = getattr(schedules, f"{config.pop('schedule')}_sigmas")
    schedule = schedules.explicit(build(case.steps, **config))
    np.testing.assert_allclose(schedule.sigmas, expected["sigmas"], SIGMA_RTOL)
    program = trace(case.source.removeprefix("sample_"), schedule, **case.options)
    result, _ = latents_by_run(program, [1.0] * case.steps)
    reference = expected["trajectory"][0]
    assert np.abs(result - reference).max() < 1e-4 * np.abs(reference).max(), AGAIN


def test_goldens_say_where_they_come_from() -> None:
    with np.load(GOLDEN) as file:
        versions = json.loads(str(file["versions"]))
    assert {"diffusers", "torch", "k-diffusion", "script"} <= set(versions)
    assert GOLDEN.stat().st_size < 500_000
