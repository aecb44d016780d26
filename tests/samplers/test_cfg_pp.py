"""CFG++: weights on both halves against the paper's formulas, and how programs hold the halves."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.reference import guidance_float64 as paper
from tests.samplers.helpers import assert_same_run, numpy_network, start
from tests.samplers.test_weights import LEVELS, unit_vectors
from textopia_fast.samplers import SAMPLERS, schedules, trace
from textopia_fast.tracing.program import MAX_OPERANDS, Combine, Denoise, Step
from textopia_fast.tracing.reference import ArrayModel, run

NAMES = [name for name in SAMPLERS if name.endswith("cfg_pp")]
CASES: dict[str, tuple[str, dict[str, Any], Callable[..., np.ndarray]]] = {
    "euler": ("euler_cfg_pp", {}, paper.euler_cfg_pp),
    "ancestral-1": ("euler_ancestral_cfg_pp", {"eta": 1.0}, paper.euler_ancestral_cfg_pp),
    "ancestral-0.4": ("euler_ancestral_cfg_pp", {"eta": 0.4}, paper.euler_ancestral_cfg_pp),
    "ddim-0": ("ddim_cfg_pp", {"eta": 0.0}, paper.ddim_cfg_pp),
    "ddim-0.5": ("ddim_cfg_pp", {"eta": 0.5}, paper.ddim_cfg_pp),
    "2m": ("dpmpp_2m_cfg_pp", {}, paper.dpmpp_2m_cfg_pp),
    "2s-1": ("dpmpp_2s_ancestral_cfg_pp", {"eta": 1.0}, paper.dpmpp_2s_ancestral_cfg_pp),
    "2s-0": ("dpmpp_2s_ancestral_cfg_pp", {"eta": 0.0}, paper.dpmpp_2s_ancestral_cfg_pp),
}


def pairs_of_unit_vectors(first: int) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    take = unit_vectors(first)
    return lambda *_: (take(), take())


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("g", [0.0, 0.6, 1.0, 3.0])
@pytest.mark.parametrize("name", CASES)
def test_total_weights(name: str, g: float, levels: str) -> None:
    sampler, options, reference = CASES[name]
    sigmas = LEVELS[levels]
    program = trace(sampler, sigmas, **options)
    x = unit_vectors(0)()
    got = run(program, pairs_of_unit_vectors(1), x, unit_vectors(201), g)
    expected = reference(x, sigmas, pairs_of_unit_vectors(1), unit_vectors(201), g, **options)
    # close levels cancel: what is left of numbers near 1 has their rounding
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=3e-14 * np.abs(expected).max())


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample", "flow"])
@pytest.mark.parametrize("name", NAMES)
def test_program_is_the_function(name: str, prediction: str) -> None:
    """On a network with two halves, too."""
    schedule = schedules.explicit([4.0, 2.5, 1.0, 0.4, 0.0])
    assert_same_run(name, schedule, prediction)

    def network(x: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
        return numpy_network(x, level), numpy_network(0.5 * x, level)

    def draw() -> Callable[[], np.ndarray]:
        rng = np.random.default_rng(1)
        return lambda: rng.standard_normal(start(schedule).shape)

    m = ArrayModel(network, draw(), schedule.noise_level, prediction, guidance=0.7)
    expected = SAMPLERS[name].function(m, start(schedule), schedule.sigmas)
    got = run(trace(name, schedule, prediction), network, start(schedule), draw(), 0.7)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13 * np.abs(expected).max())


@pytest.mark.parametrize("name", NAMES)
def test_equal_halves_make_it_the_plain_sampler(name: str) -> None:
    sigmas = LEVELS["karras"]
    plain = name.removesuffix("_cfg_pp")
    x, draws = unit_vectors(0)(), unit_vectors(201)
    got = run(trace(name, sigmas), unit_vectors(1), x, draws)
    expected = run(trace(plain, sigmas), unit_vectors(1), x, unit_vectors(201))
    # 2M extrapolates the same slope
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12)


def test_programs_hold_the_half_as_a_term_of_its_own() -> None:
    program = trace("dpmpp_2m_cfg_pp", [4.0, 2.0, 1.0, 0.0])
    assert program.reads_uncond
    assert "u1" in str(program)
    assert program.e_registers == 2  # the half of the step before is still read
    assert pickle.loads(pickle.dumps(program)) == program
    assert not trace("dpmpp_2m", [4.0, 2.0, 1.0, 0.0]).reads_uncond


def test_a_half_keeps_its_register_and_counts_once() -> None:
    def late(m: Any, x: Any, sigmas: Any) -> Any:
        halves = [m.denoise_halves(x, 1.0 + i)[1] for i in range(20)]
        x = m.denoise(x, 3.0)
        m.step(x, denoised=halves[0])
        return x + sum(halves) / 20

    program = assert_same_run(late, schedules.explicit([4.0, 0.0]))
    assert program.e_registers == 21
    terms = [
        i.terms if isinstance(i, Combine) else i.denoised
        for i in program.instructions
        if isinstance(i, (Combine, Step))
    ]
    costs = [sum(2 if r.kind == "e" else 1 for r, _ in each) for each in terms]
    assert max(costs) == MAX_OPERANDS


def test_an_unread_half_costs_nothing() -> None:
    def plain(m: Any, x: Any, sigmas: Any) -> Any:
        for s in sigmas[:-1]:
            x, _ = m.denoise_halves(x, s)
            m.step(x, denoised=x)
        return x

    def same(m: Any, x: Any, sigmas: Any) -> Any:
        for s in sigmas[:-1]:
            x = m.denoise(x, s)
            m.step(x, denoised=x)
        return x

    one, other = (trace(each, [4.0, 2.0, 0.0]) for each in (plain, same))
    assert one.instructions == other.instructions
    assert not one.reads_uncond
    assert sum(isinstance(i, Denoise) for i in one.instructions) == 2
