"""Configs of flows and of classes with levels of their own: shifts, levels given, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.golden.sampler_cases import SD
from textopia_fast.errors import InvalidRequestError, UnsupportedModelError
from textopia_fast.samplers import from_config, schedules, trace_plan


def options(plan: Any) -> dict[str, Any]:
    return dict(plan.options)


def test_flows_keep_their_class_whatever_the_sampler() -> None:
    config = {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}
    heun = from_config(config, 4, sampler="flow_heun")
    assert heun.scheduler_class == config["_class_name"]
    assert heun.prediction == "flow"
    assert heun.schedule == from_config(config, 4).schedule
    assert heun.timesteps[0] == pytest.approx(1000.0)
    assert heun.latent_scales == (1.0,) * 4
    assert from_config(config, 4, sigmas=[9.0, 1.0, 0.0]).timesteps == (900.0, 500.0)
    for arguments in ({"sampler": "euler"}, {"schedule": "karras"}, {"timesteps": [5, 1]}):
        with pytest.raises(InvalidRequestError, match="allowed"):
            from_config(config, 4, **arguments)
    for steps in (0, True, 2.5):
        with pytest.raises(InvalidRequestError, match="num_inference_steps"):
            from_config(config, steps)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="shift_terminal"):
        from_config({**config, "shift_terminal": 0.1}, 1)


def test_edm_takes_other_samplers() -> None:
    config = {"_class_name": "EDMEulerScheduler"}
    for sampler in ("heun", "dpmpp_2m", "ddim", "euler_ancestral"):
        plan = from_config(config, 5, sampler=sampler)
        assert plan.prediction == "edm"
        assert plan.scheduler_class == "EDMEulerScheduler"
        assert plan.schedule == from_config(config, 5).schedule
        assert trace_plan(plan).step_count == 5
    assert plan.timesteps[0] == pytest.approx(0.25 * np.log(80.0))
    churned = from_config(config, 5, sampler_options={"s_churn": 5.0})
    assert trace_plan(churned).draw_count == 5


FLOW = {**SD, "prediction_type": "flow_prediction", "use_flow_sigmas": True}


@pytest.mark.parametrize("name", ["DPMSolverMultistep", "UniPCMultistep", "DEISMultistep"])
def test_flows_on_solver_classes(name: str) -> None:
    config = {"_class_name": f"{name}Scheduler", **FLOW, "flow_shift": 3.0}
    plan = from_config(config, 6)
    assert plan.prediction == "flow"
    assert plan.schedule.initial_scale == pytest.approx(1 + plan.schedule.sigmas[0])
    assert plan.latent_scales[0] == pytest.approx(1 / (1 + plan.schedule.sigmas[1]))
    assert plan.latent_scales[-1] == 1.0
    dynamic = {**config, "use_dynamic_shifting": True}
    shifted = from_config(dynamic, 6, mu=float(np.log(3.0)))
    np.testing.assert_allclose(shifted.schedule.sigmas, plan.schedule.sigmas, rtol=1e-9)
    mine = schedules.flow(4)
    assert from_config(config, 6, schedule=mine).schedule is mine
    for given in ({"schedule": "karras"}, {"timesteps": [5, 1]}, {"sigmas": [1.0, 0.0]}):
        with pytest.raises(InvalidRequestError, match="is a Schedule"):
            from_config(config, 6, **given)
    for wrong in (
        {**config, "prediction_type": "epsilon"},
        {**config, "use_karras_sigmas": True},
        {**config, "use_flow_sigmas": False},
    ):
        with pytest.raises(UnsupportedModelError, match="supported are"):
            from_config(wrong, 6)


def test_a_flow_stays_one_whatever_the_solver() -> None:
    config = {"_class_name": "UniPCMultistepScheduler", **FLOW}
    assert from_config(config, 6, sampler="dpmpp_2m").prediction == "flow"
    with pytest.raises(UnsupportedModelError, match="flow_prediction"):
        from_config(config, 6, sampler="euler")


@pytest.mark.parametrize(
    ("name", "settings", "mu"),
    [
        ("FlowMatchEulerDiscrete", {}, 1.0),
        ("FlowMatchEulerDiscrete", {"use_dynamic_shifting": True}, None),
        ("FlowMatchEulerDiscrete", {"use_dynamic_shifting": True}, float("nan")),
        ("FlowMatchLCM", {"use_dynamic_shifting": True, "time_shift_type": "linear"}, -1.0),
        ("FlowMatchHeunDiscrete", {}, 1.0),
        ("UniPCMultistep", {**FLOW, "use_dynamic_shifting": True}, None),
        ("UniPCMultistep", FLOW, 0.5),
        ("DPMSolverMultistep", {"use_dynamic_shifting": True, "time_shift_type": "linear"}, 0.5),
        ("EulerDiscrete", {}, 0.5),
    ],
)
def test_refuses_mu(name: str, settings: dict[str, Any], mu: float | None) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        from_config({"_class_name": f"{name}Scheduler", **settings}, 4, mu=mu)
    assert caught.value.details["param"] == "mu"


@pytest.mark.parametrize("name", ["IPNDM", "ScoreSdeVe"])
def test_levels_that_come_with_the_class(name: str) -> None:
    config = {"_class_name": f"{name}Scheduler"}
    for given in ({"sigmas": [1.0, 0.0]}, {"timesteps": [5, 1]}, {"schedule": "karras"}):
        with pytest.raises(InvalidRequestError, match="allowed is a Schedule"):
            from_config(config, 4, **given)
    assert trace_plan(from_config(config, 4)).step_count == 4
    assert "from_pure_noise" not in options(from_config(config, 4).tail(2))


def test_sa_solver_draws_as_often_as_diffusers() -> None:
    config = {"_class_name": "SASolverScheduler", **SD}
    assert trace_plan(from_config(config, 9)).draw_count == 9
    quiet = from_config({**config, "tau_func": lambda told: 0.0}, 9)
    assert trace_plan(quiet).draw_count == 9
    plain = from_config(config, 9, sampler_options={"keep_draws": False})
    assert 0 < trace_plan(plain).draw_count < 9
