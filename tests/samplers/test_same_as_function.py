"""A program does what its function does on arrays: every sampler, option, prediction."""

from __future__ import annotations

from inspect import signature
from typing import Any

import pytest

from tests.samplers.helpers import assert_same_run
from textopia_fast.errors import InvalidRequestError
from textopia_fast.samplers import Schedule, TrainingTable, schedules, trace
from textopia_fast.tracing.program import Clamp, Combine, Denoise
from textopia_fast.tracing.registry import SAMPLERS

TABLE = TrainingTable(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in SAMPLERS),
    ("euler", {"s_churn": 2.0, "s_tmin": 0.1, "s_tmax": 10.0, "s_noise": 1.01}),
    ("euler_ancestral", {"eta": 0.3, "s_noise": 0.9}),
    ("euler_ancestral", {"eta": 0.0}),
    ("heun", {"s_churn": 2.0}),
    ("heun", {"clip": 0.8}),
    ("dpmpp_2m", {"order": 1}),
    ("dpmpp_2m", {"euler_at_final": True, "result_scale": 0.7}),
    ("ddim", {"eta": 1.0}),
    ("ddim", {"eta": 0.5, "clip": 0.8}),
    ("ddpm", {"variance": "fixed_large"}),
    ("ddpm", {"clip": 0.8}),
    ("plms", {"restart": 7.0, "velocity": True}),
    ("pndm", {"middles": ((4.0, 3.9), (2.0, 1.9), (0.9, 0.8)), "velocity": True}),
    *(("lms", {"order": order}) for order in (1, 2, 3)),
    ("dpm_2", {"s_churn": 2.0}),
    ("dpm_2_ancestral", {"eta": 0.0}),
    ("dpm_2_ancestral", {"mid_apart": True, "s_noise": 0.9}),
    ("dpmpp_2s_ancestral", {"eta": 0.0}),
    ("dpmpp_2s_ancestral", {"eta": 0.4, "s_noise": 0.9}),
    ("dpmpp_sde", {"eta": 0.0}),
    ("dpmpp_sde", {"eta": 0.4, "s_noise": 0.9, "r": 0.3}),
    ("dpmpp_2m_sde", {"eta": 0.0}),
    ("dpmpp_2m_sde", {"eta": 0.4, "s_noise": 0.9, "solver_type": "heun"}),
    ("dpmpp_2m_sde", {"euler_at_final": True, "result_scale": 0.7}),
    ("dpmpp_2m_sde", {"order": 1}),
    ("dpmpp_3m_sde", {"eta": 0.0}),
    ("dpmpp_3m_sde", {"eta": 0.4, "s_noise": 0.9}),
    *(
        (name, {"order": order, "solver_type": "heun", "predict": predict})
        for name in ("dpm_multistep", "dpm_singlestep")
        for order in (1, 2, 3)
        for predict in ("x0", "eps")
    ),
    ("dpm_multistep", {"lower_order_final": 2, "result_scale": 0.7}),
    ("dpm_multistep", {"order": 2, "noise": True, "predict": "eps"}),
    ("dpm_singlestep", {"lower_order_final": False, "result_scale": 0.7}),
    ("dpm_singlestep", {"order": 2, "noise": True}),
    *(
        ("unipc", {"order": order, "solver_type": kind, "predict_x0": predict_x0})
        for order in (1, 2, 3)
        for kind in ("bh1", "bh2")
        for predict_x0 in (True, False)
    ),
    ("unipc", {"lower_order_final": False, "disable_corrector": (0, 2), "result_scale": 0.7}),
    ("deis", {"order": 1}),
    ("deis", {"order": 3, "lower_order_final": True, "result_scale": 0.7}),
    ("ipndm", {"order": 2}),
    ("ipndm", {"from_pure_noise": True}),
    ("sa_solver", {"predictor_order": 3, "corrector_order": 4, "tau": 0.4, "result_scale": 0.7}),
    ("sa_solver", {"predictor_order": 1, "corrector_order": 1, "tau": 0.0}),
    ("sa_solver", {"corrector_order": 0, "predict_x0": False, "lower_order_final": False}),
    ("sa_solver", {"tau": lambda told: float(told > 500), "predict_x0": False}),
    *(("er_sde", {"order": order, "s_noise": 0.9}) for order in (1, 2)),
    ("res_multistep", {"eta": 0.6, "s_noise": 0.9}),
    ("gradient_estimation", {"gamma": 1.5}),
    ("dpm_fast", {"eta": 0.6, "s_noise": 0.9}),
    ("restart", {"low": 0.2, "high": 1.5, "k": 2, "n_steps": 2, "s_noise": 0.9}),
    ("restart", {"k": 0}),
    ("lcm", {"timestep_scaling": 0.01}),
    ("lcm", {"clip": 0.8}),
    ("flow_euler", {"stochastic": True}),
    ("tcd", {"eta": 0.0}),
    ("tcd", {"eta": 1.0}),
    ("langevin", {"eta": 0.01, "denoise": True}),
    ("langevin", {"eta": 0.01, "coefficients": "as-printed"}),
    ("annealed_langevin", {"n_steps": 1, "step": 0.05, "denoise": False}),
    ("annealed_langevin", {"coefficients": "as-printed", "step": 0.001}),
    ("underdamped_langevin", {"n_steps": 3, "step": 0.4, "friction": 0.0, "denoise": False}),
    *(
        ("predictor_corrector", {"sde": sde, "predictor": predictor, "corrector": corrector})
        for sde in ("vp", "subvp")
        for predictor in ("reverse_diffusion", "euler_maruyama")
        for corrector in ("langevin", "ald", "none")
    ),
    ("predictor_corrector", {"sde": "vp", "predictor": "ancestral", "denoise": False}),
    ("predictor_corrector", {"sde": "vp", "probability_flow": True, "corrector": "none"}),
    ("predictor_corrector", {"corrector": "ald", "predictor": "ancestral"}),
    ("predictor_corrector", {"corrector": "none", "predictor": "euler_maruyama"}),
    ("predictor_corrector", {"predictor": "none", "n_steps": 2}),
    ("predictor_corrector", {"norm": "batch", "denoise": False}),
]
SCHEDULES: dict[str, Schedule] = {
    "karras": schedules.karras(6, 0.03, 14.6, table=TABLE),
    "leading": schedules.discrete(5, TABLE, steps_offset=1, final="sigma_min"),
    "one": schedules.discrete(1, TABLE, spacing="trailing"),
    "repeated": schedules.explicit([5.0, 5.0, 1.0, 1.0, 1.0, 0.2, 0.2, 0.0], table=TABLE),
    "constant": schedules.explicit([2.0, 2.0, 2.0], table=TABLE),
}


def ids(cases: list[tuple[str, dict[str, Any]]]) -> list[str]:
    return [
        "-".join([name, *(f"{k}={getattr(v, '__name__', v)}" for k, v in options.items())])
        for name, options in cases
    ]


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=ids(OPTIONS))
def test_every_option(name: str, options: dict[str, Any], schedule: str) -> None:
    program = assert_same_run(name, SCHEDULES[schedule], **options)
    assert program.step_count == SCHEDULES[schedule].step_count


@pytest.mark.parametrize("prediction", ["v_prediction", "sample", "score", "flow", "edm"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_prediction(name: str, prediction: str) -> None:
    assert_same_run(name, SCHEDULES["karras"], prediction)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_thousand_steps(name: str) -> None:
    program = trace(name, schedules.discrete(1000, TABLE, spacing="linspace"))
    assert program.step_count == 1000


@pytest.mark.parametrize(
    "name",
    [name for name, info in SAMPLERS.items() if "eta" in signature(info.function).parameters],
)
def test_refuses_eta(name: str) -> None:
    for wrong in (-0.1, float("nan"), float("inf"), "1", True):
        with pytest.raises(InvalidRequestError) as caught:
            trace(name, SCHEDULES["karras"], eta=wrong)
        assert caught.value.details["param"] == "eta"


@pytest.mark.parametrize("name", SAMPLERS)
def test_refuses_noise_levels(name: str) -> None:
    nan, inf = float("nan"), float("inf")
    for wrong in (
        [],
        [1.0],
        [1.0, 2.0, 0.0],
        [2.0, 1.0, 0.0, 0.0],
        [1.0, nan],
        [1.0, -1.0],
        [inf, 0],
    ):
        with pytest.raises(InvalidRequestError) as caught:
            trace(name, wrong)
        assert caught.value.details["param"] == "sigmas"


@pytest.mark.parametrize("name", SAMPLERS)
def test_orders_beyond_the_steps(name: str) -> None:
    """Fewer steps than the order: those that there are."""
    parameters = signature(SAMPLERS[name].function).parameters
    most = 2 if name == "dpmpp_2m" else 3
    orders = {key: most for key in parameters if key.endswith("order")}
    for levels in ([2.0, 0.0], [2.0, 1.0], [2.0, 1.0, 0.0]):
        schedule = schedules.explicit(levels, table=TABLE)
        assert assert_same_run(name, schedule, **orders).step_count == len(levels) - 1


def test_ddim_steps_to_the_targets_of_the_schedule() -> None:
    sigmas, targets = (10.0, 3.0, 1.0, 0.0), (4.0, 0.9, 0.1)
    schedule = Schedule(sigmas, (900.0, 500.0, 200.0), 10.0, table=TABLE, targets=targets)
    program = assert_same_run("ddim", schedule)
    assert program != trace("ddim", Schedule(sigmas, (900.0, 500.0, 200.0), 10.0, table=TABLE))
    # The targets are DDIM's own business.
    trace("euler", schedule)


ONE_UPDATE_PER_RUN = [
    (name, options)
    for name, options in OPTIONS
    if "clip" not in options
    and "s_churn" not in options
    and name != "dpmpp_sde"  # the draw that both stages use is kept in a latent
    and name != "underdamped_langevin"  # its momentum is a latent, too
    and not (name == "predictor_corrector" and options.get("norm") == "batch")
]


@pytest.mark.parametrize(("name", "options"), ONE_UPDATE_PER_RUN, ids=ids(ONE_UPDATE_PER_RUN))
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_one_update_per_network_run(name: str, options: dict[str, Any], prediction: str) -> None:
    program = trace(name, SCHEDULES["karras"], prediction, **options)
    assert program.combine_count == program.denoise_count


def test_clipping_costs_one_update_and_one_clamp_more_per_run() -> None:
    program = trace("ddim", SCHEDULES["karras"], clip=1.0)
    kinds = [type(i) for i in program.instructions[:5]]
    assert kinds[:4] == [Denoise, Combine, Clamp, Combine]


# Operands read by the widest update, latents held, network outputs held (epsilon prediction).
WIDTHS = {
    "euler": (2, 1, 1),
    "euler_ancestral": (3, 2, 1),
    "heun": (3, 2, 2),
    "dpmpp_2m": (4, 2, 2),
    "ddim": (2, 1, 1),
    "ddpm": (3, 2, 1),
    "plms": (5, 2, 4),
    "pndm": (8, 4, 6),
    "lms": (5, 2, 4),
    "dpm_2": (2, 2, 2),
    "dpm_2_ancestral": (3, 2, 2),
    "dpmpp_2s_ancestral": (4, 2, 2),
    "dpmpp_sde": (5, 3, 2),
    "dpmpp_2m_sde": (5, 2, 2),
    "dpmpp_3m_sde": (7, 3, 3),
    "dpm_multistep": (6, 3, 3),
    "unipc": (6, 3, 3),
    "deis": (4, 2, 3),
    "ipndm": (5, 2, 4),
    "gradient_estimation": (3, 2, 2),
    "res_multistep": (4, 2, 2),
    "dpm_fast": (3, 2, 2),
    "sa_solver": (7, 3, 3),
    "er_sde": (7, 3, 3),
    "restart": (4, 2, 2),
    "lcm": (3, 2, 1),
    "tcd": (3, 2, 1),
    "flow_euler": (2, 1, 1),
    "flow_heun": (4, 2, 2),
    "dpm_singlestep": (4, 2, 2),
    "langevin": (3, 2, 1),
    "annealed_langevin": (3, 2, 1),
    "predictor_corrector": (3, 2, 1),
}


@pytest.mark.parametrize("name", WIDTHS)
def test_widths_and_registers(name: str) -> None:
    program = trace(name, SCHEDULES["karras"])
    widest = max(
        len(i.terms) + (i.noise != 0.0) for i in program.instructions if isinstance(i, Combine)
    )
    assert (widest, program.x_registers, program.e_registers) == WIDTHS[name]


def test_without_previews_noise_costs_no_second_latent() -> None:
    def ancestral(m: Any, x: Any, sigmas: Any) -> Any:
        for s in sigmas[:-1]:
            x = x + 0.1 * (m.denoise(x, s) - x) + 0.2 * m.noise()
            m.step(x)
        return x

    program = assert_same_run(ancestral, SCHEDULES["karras"])
    assert (program.x_registers, program.e_registers) == (1, 1)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("lms", "order", 0),
        ("lms", "order", 7),
        ("lms", "order", 2.0),
        ("dpmpp_sde", "r", 0.0),
        ("dpmpp_sde", "r", 1.0),
        ("dpmpp_2m_sde", "solver_type", "ralston"),
        ("unipc", "order", 4),
        ("unipc", "solver_type", "midpoint"),
        ("deis", "order", 0),
        ("ipndm", "order", 5),
        ("dpm_multistep", "order", 4),
        ("dpm_multistep", "noise", True),
        ("dpm_singlestep", "solver_type", "bh2"),
        ("dpm_singlestep", "predict", "v"),
        ("sa_solver", "predictor_order", 0),
        ("sa_solver", "predictor_order", 5),
        ("sa_solver", "corrector_order", 5),
        ("sa_solver", "tau", -0.1),
        ("sa_solver", "tau", float("nan")),
        ("sa_solver", "tau", lambda told: "much"),
        ("er_sde", "order", 4),
        ("er_sde", "order", 0),
        ("dpm_fast", "orders", (3, 2, 1)),
        ("dpm_fast", "orders", (4,) * 6),
        ("restart", "low", 0.0),
        ("restart", "low", 3.0),
        ("restart", "n_steps", 0),
        ("restart", "k", 1.5),
    ],
)
def test_refuses_options(name: str, option: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"allowed (are|is|with)") as caught:
        trace(name, SCHEDULES["karras"], **{option: value})
    assert caught.value.details["param"] == option
