"""Weights of every sampler against the papers' formulas (tests/reference), to 1e-12 relative.

The initial latent, every network output and every draw are unit vectors of their own, so the result
of a run is the list of the total weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.reference import dpm_float64 as dpm
from tests.reference import extended_float64 as extended
from tests.reference import multistep_float64 as multistep
from tests.reference import samplers_float64 as paper
from tests.reference import two_stage_float64 as two_stage
from textopia_fast.samplers import schedules, trace
from textopia_fast.tracing.reference import run

DIM = 1 + 200 + 200


def low_only(told: float) -> float:
    """A tau that is 0 at the high noise levels."""
    return 0.8 if told < 5.0 else 0.0


LEVELS = {
    "karras": schedules.karras_sigmas(7, 0.03, 14.6),
    "exponential": schedules.exponential_sigmas(7, 0.03, 14.6),
    "close": (1.0, 0.999, 0.998, 0.5, 0.0),
    "one": (14.6, 0.0),
    "open": (14.6, 3.0, 0.7, 0.03),
}
# name -> (sampler, options, the paper's function, its options)
CASES: dict[str, tuple[str, dict[str, Any], Callable[..., np.ndarray], dict[str, Any]]] = {
    "euler": ("euler", {}, paper.euler, {}),
    "churn": (
        "euler",
        {"s_churn": 3.0, "s_noise": 1.003},
        paper.churned_euler,
        {"s_churn": 3.0, "s_noise": 1.003},
    ),
    "heun": ("heun", {}, paper.heun, {}),
    "ancestral-1": ("euler_ancestral", {}, paper.euler_ancestral, {"eta": 1.0}),
    "ancestral-0.4": ("euler_ancestral", {"eta": 0.4}, paper.euler_ancestral, {"eta": 0.4}),
    "dpmpp_2m": ("dpmpp_2m", {}, paper.dpmpp_2m, {}),
    "ddim-0": ("ddim", {}, paper.ddim, {"eta": 0.0}),
    "ddim-0.5": ("ddim", {"eta": 0.5}, paper.ddim, {"eta": 0.5}),
    "ddpm-small": ("ddpm", {}, paper.ddpm, {"large": False}),
    "ddpm-large": ("ddpm", {"variance": "fixed_large"}, paper.ddpm, {"large": True}),
    "plms": ("plms", {}, multistep.plms, {}),
    "pndm": ("pndm", {}, multistep.pndm, {}),
    "lms": ("lms", {}, multistep.lms, {}),
    "lms-2": ("lms", {"order": 2}, multistep.lms, {"order": 2}),
    "ipndm": ("ipndm", {}, multistep.ipndm, {}),
    **{
        f"deis-{order}": ("deis", {"order": order}, multistep.deis, {"order": order})
        for order in (1, 2, 3)
    },
    **{
        f"unipc-{order}-{kind}-{predict_x0}": (
            "unipc",
            {"order": order, "solver_type": kind, "predict_x0": predict_x0},
            multistep.unipc,
            {"order": order, "bh1": kind == "bh1", "predict_x0": predict_x0},
        )
        for order in (1, 2, 3)
        for kind in ("bh1", "bh2")
        for predict_x0 in (True, False)
    },
    "flow_euler": ("flow_euler", {}, two_stage.flow, {}),
    "flow_noise": ("flow_euler", {"stochastic": True}, two_stage.flow, {"stochastic": True}),
    "flow_heun": ("flow_heun", {}, two_stage.flow, {"heun": True}),
    "lcm": ("lcm", {"timestep_scaling": 0.3}, multistep.lcm, {"scaling": 0.3}),
    "lcm-plain": ("lcm", {}, multistep.lcm, {"scaling": 1e100}),
    "tcd": ("tcd", {}, multistep.tcd, {"gamma": 0.3}),
    "tcd-0": ("tcd", {"eta": 0.0}, multistep.tcd, {"gamma": 0.0}),
    "dpm_2": ("dpm_2", {}, two_stage.dpm_2, {}),
    "dpm_2_ancestral-1": ("dpm_2_ancestral", {}, two_stage.dpm_2, {"eta": 1.0}),
    "dpm_2_ancestral-0.4": ("dpm_2_ancestral", {"eta": 0.4}, two_stage.dpm_2, {"eta": 0.4}),
    "2s-1": ("dpmpp_2s_ancestral", {}, two_stage.dpmpp_2s, {"eta": 1.0}),
    "2s-0": ("dpmpp_2s_ancestral", {"eta": 0.0}, two_stage.dpmpp_2s, {"eta": 0.0}),
    "sde-1": ("dpmpp_sde", {}, two_stage.dpmpp_sde, {"eta": 1.0, "r": 0.5}),
    "sde-0.4": (
        "dpmpp_sde",
        {"eta": 0.4, "r": 0.3},
        two_stage.dpmpp_sde,
        {"eta": 0.4, "r": 0.3},
    ),
    "2m_sde": (
        "dpmpp_2m_sde",
        {},
        two_stage.multistep_sde,
        {"eta": 1.0, "order": 2, "midpoint": True},
    ),
    "2m_sde-heun": (
        "dpmpp_2m_sde",
        {"eta": 0.4, "solver_type": "heun"},
        two_stage.multistep_sde,
        {"eta": 0.4, "order": 2},
    ),
    "3m_sde": ("dpmpp_3m_sde", {}, two_stage.multistep_sde, {"eta": 1.0, "order": 3}),
    "3m_sde-0": ("dpmpp_3m_sde", {"eta": 0.0}, two_stage.multistep_sde, {"eta": 0.0, "order": 3}),
    "annealed": (
        "annealed_langevin",
        {"n_steps": 2, "step": 0.07},
        paper.annealed_langevin,
        {"n_steps": 2, "step": 0.07},
    ),
    "langevin": ("langevin", {"eta": 0.02}, paper.langevin, {"eta": 0.02}),
    "printed": (
        "langevin",
        {"eta": 0.02, "coefficients": "as-printed"},
        paper.printed_langevin,
        {"eta": 0.02},
    ),
    "reverse_diffusion": (
        "predictor_corrector",
        {"corrector": "none"},
        paper.reverse_diffusion,
        {},
    ),
    "ald": (
        "predictor_corrector",
        {"corrector": "ald", "snr": 0.2},
        paper.reverse_diffusion,
        {"snr": 0.2},
    ),
    "ancestral": (
        "predictor_corrector",
        {"predictor": "ancestral", "corrector": "none"},
        paper.ancestral,
        {},
    ),
    "euler_maruyama": (
        "predictor_corrector",
        {"predictor": "euler_maruyama", "corrector": "none"},
        paper.euler_maruyama,
        {},
    ),
}


for predict_x0 in (True, False):
    for p, c, tau in ((1, 1, 1.0), (2, 2, 1.0), (3, 4, 0.4), (2, 3, 0.0), (4, 2, 1.0), (2, 0, 1.0)):
        CASES[f"sa-{p}-{c}-{tau}-{'x0' if predict_x0 else 'eps'}"] = (
            "sa_solver",
            {"predictor_order": p, "corrector_order": c, "tau": tau, "predict_x0": predict_x0},
            extended.sa_solver,
            {"p": p, "c": c, "tau": tau, "predict_x0": predict_x0},
        )
CASES |= {
    "sa-high": (
        "sa_solver",
        {"predictor_order": 3, "corrector_order": 3, "tau": low_only, "lower_order_final": False},
        extended.sa_solver,
        {"p": 3, "c": 3, "tau": low_only, "lower": False},
    ),
    **{
        f"er_sde-{order}": ("er_sde", {"order": order}, extended.er_sde, {"order": order})
        for order in (1, 2, 3)
    },
    "res": ("res_multistep", {}, extended.res_multistep, {}),
    "res-0.7": ("res_multistep", {"eta": 0.7}, extended.res_multistep, {"eta": 0.7}),
    "gradient": ("gradient_estimation", {}, extended.gradient_estimation, {}),
    "gradient-1.5": (
        "gradient_estimation",
        {"gamma": 1.5},
        extended.gradient_estimation,
        {"gamma": 1.5},
    ),
    "dpm_fast": ("dpm_fast", {}, extended.dpm_fast, {}),
    "dpm_fast-0.6": ("dpm_fast", {"eta": 0.6}, extended.dpm_fast, {"eta": 0.6}),
    "restart": (
        "restart",
        {"low": 0.2, "high": 3.0, "k": 2, "n_steps": 3},
        extended.restart,
        {"low": 0.2, "high": 3.0, "k": 2, "n_steps": 3},
    ),
}
for order in (1, 2, 3):
    for solver_type in ("midpoint", "heun"):
        for predict in ("x0", "eps"):
            how = {"order": order, "predict": predict}
            name = f"dpm-{order}-{solver_type}-{predict}"
            CASES[name] = (
                "dpm_multistep",
                {**how, "solver_type": solver_type},
                dpm.dpm_multistep,
                {**how, "midpoint": solver_type == "midpoint"},
            )
CASES["dpm-lower"] = (
    "dpm_multistep",
    {"lower_order_final": 2},
    dpm.dpm_multistep,
    {"order": 3, "lower": 2},
)


@pytest.mark.parametrize("sigmas", [(14.6, 3.0, 1.1, 0.4, 0.2, 0.1), LEVELS["karras"], (2.0, 0.0)])
@pytest.mark.parametrize("solver_type", ["midpoint", "heun"])
@pytest.mark.parametrize(
    ("predict", "noise", "order"),
    [
        *((predict, False, order) for predict in ("x0", "eps") for order in (1, 2, 3)),
        *(("x0", True, order) for order in (1, 2)),
    ],
)
def test_singlestep_weights(
    predict: str, noise: bool, order: int, solver_type: str, sigmas: tuple[float, ...]
) -> None:
    how = {"predict": predict, "noise": noise}
    got = weights_of_program(
        "dpm_singlestep",
        sigmas,
        **how,
        order=order,
        solver_type=solver_type,
        lower_order_final=False,
    )
    n = len(sigmas) - 1
    orders = [1 + i % order for i in range(n)]
    if sigmas[-1] == 0:
        orders[-1] = 1
    expected = dpm.dpm_singlestep(
        unit_vectors(0)(),
        sigmas,
        unit_vectors(1),
        unit_vectors(201),
        orders=orders,
        midpoint=solver_type == "midpoint",
        **how,
    )
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=3e-14 * np.abs(expected).max())


def test_the_first_solver_with_noise() -> None:
    sigmas = (14.6, 3.0, 1.1, 0.4)
    for heun in (False, True):
        solver_type = "heun" if heun else "midpoint"
        how = {"order": 2, "predict": "eps", "noise": True}
        got = weights_of_program("dpm_multistep", sigmas, **how, solver_type=solver_type)
        expected = dpm.dpm_multistep(
            unit_vectors(0)(), sigmas, unit_vectors(1), unit_vectors(201), **how, midpoint=not heun
        )
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)


def unit_vectors(first: int) -> Callable[..., np.ndarray]:
    count = 0

    def take(*_: Any) -> np.ndarray:
        nonlocal count
        vector = np.zeros((1, DIM))
        vector[0, first + count] = 1.0
        count += 1
        return vector

    return take


def weights_of_program(sampler: str, sigmas: tuple[float, ...], **options: Any) -> np.ndarray:
    program = trace(sampler, sigmas, **options)
    return run(program, unit_vectors(1), unit_vectors(0)(), unit_vectors(201))


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("name", CASES)
def test_total_weights(name: str, levels: str) -> None:
    sampler, options, reference, reference_options = CASES[name]
    sigmas = LEVELS[levels]
    if name == "dpmpp_2m" and levels == "open":
        options, sigmas = {"euler_at_final": True}, (*sigmas, 0.0)
    if name == "euler_maruyama" and levels != "exponential":
        sigmas = (8.0, 2.0, 0.5, 0.0)  # the paper's levels are geometric
    got = weights_of_program(sampler, sigmas, **options)
    expected = reference(
        unit_vectors(0)(), sigmas, unit_vectors(1), unit_vectors(201), **reference_options
    )
    scale = np.abs(expected).max()
    # alpha_bar near 1 costs the references digits: 1 - 1/(1 + 0.03^2) has lost three
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=3e-14 * scale)


@pytest.mark.parametrize("norm", ["sample", "batch"])
def test_langevin_step_takes_the_papers_step_size(norm: str) -> None:
    rng = np.random.default_rng(0)
    x, e, z = (rng.standard_normal((3, 2, 4, 4)) for _ in range(3))
    e *= np.array([1.0, 2.0, 0.5]).reshape(3, 1, 1, 1)

    def corrected(m: Any, x: Any, sigmas: Any) -> Any:
        return m.langevin_step(x, m.score(x, sigmas[0]), snr=0.3, alpha=0.9, norm=norm)

    program = trace(corrected, (2.0, 0.0))
    got = run(program, lambda *_: e, x, lambda: z)
    expected = paper.langevin_step(x, -e / 2.0, z, 0.3, 0.9, batch=norm == "batch")
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_a_step_size_is_an_images_own_unless_asked_otherwise() -> None:
    rng = np.random.default_rng(1)
    x, z = (rng.standard_normal((4, 2, 3, 3)) for _ in range(2))
    program = trace("predictor_corrector", (2.0, 1.0, 0.0), "score")

    def run_on(rows: slice) -> np.ndarray:
        return run(program, lambda x, s: -x / (1 + s * s), x[rows], lambda: z[rows])

    np.testing.assert_array_equal(run_on(slice(0, 4))[1:2], run_on(slice(1, 2)))


def test_only_textbook_langevin_keeps_the_distribution() -> None:
    # Target N(0, 1 + sigma^2) at sigma = 1; the linear map gives the stationary variance exactly:
    # x <- (1 - a/2)*x + b*z has variance b^2/(a*(1 - a/4)).
    eta = 1e-4
    for coefficients, temperature in (("textbook", 1.0), ("as-printed", np.sqrt(eta / 8))):
        program = trace("langevin", (1.0, 1.0), "score", eta=eta, coefficients=coefficients)
        kept = run(program, lambda x, _: -x / 2, np.ones((1, 1)), lambda: np.zeros((1, 1)))
        moved = run(program, lambda x, _: -x / 2, np.zeros((1, 1)), lambda: np.ones((1, 1)))
        variance = moved.item() ** 2 / (1 - kept.item() ** 2)
        assert variance == pytest.approx(2.0 * temperature, rel=0.01)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("sa_solver", {"tau": tau, "predictor_order": 3}) for tau in (0.0, 0.5, 1.0)),
        ("sa_solver", {"predict_x0": False}),
        *(("er_sde", {"order": order}) for order in (1, 2, 3)),
        *(("res_multistep", {"eta": eta}) for eta in (0.0, 1.0)),
        *(("dpm_fast", {"eta": eta}) for eta in (0.0, 1.0)),
        ("gradient_estimation", {}),
        ("restart", {"k": 3, "n_steps": 20}),
        ("ipndm", {}),
        ("dpmpp_sde", {}),
    ],
)
def test_normal_data_keep_their_variance(name: str, options: dict[str, Any]) -> None:
    """On the exact x0 = x/(1 + sigma^2) of unit normal data, in 150 steps, to 2 %.

    The initial latent and every draw are unit vectors, so the norm of the result is its deviation.
    """
    sigmas = schedules.karras_sigmas(150, 0.01, 20.0)
    program = trace(name, sigmas, "sample", **options)
    draws = np.eye(program.draw_count + 1)[1:, None] if program.draw_count else np.zeros((0, 1, 1))
    left = iter(draws)
    x = np.eye(1, program.draw_count + 1) * np.sqrt(1 + sigmas[0] ** 2)

    def network(scaled: np.ndarray, sigma: float) -> np.ndarray:
        return scaled / np.sqrt(1 + sigma**2)

    result = run(program, network, x, lambda: next(left))
    assert np.linalg.norm(result) == pytest.approx(1.0, rel=0.02)
