"""From scheduler_config.json to plans: classes, defaults, foreign configs, refusals."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from textopia_fast.errors import InvalidRequestError, UnsupportedModelError
from textopia_fast.samplers import (
    SAMPLERS,
    Schedule,
    TrainingTable,
    from_config,
    schedules,
    trace_plan,
)
from textopia_fast.schedulers.classes import CLASSES
from textopia_fast.schedulers.config import SCHEDULES, prediction_of
from textopia_fast.schedulers.continuous import CONTINUOUS
from textopia_fast.schedules.by_name import NAMED
from textopia_fast.tracing.program import Threshold

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
# The file that ships with the first Stable Diffusion models: PNDM, with keys of DDIM.
PNDM = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    **SD,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}


def options(plan: Any) -> dict[str, Any]:
    return dict(plan.options)


@pytest.mark.parametrize("name", CLASSES)
def test_classes_alone_take_diffusers_defaults(name: str) -> None:
    plan = from_config({"_class_name": name}, 10)
    assert plan.sampler == CLASSES[name].sampler
    assert plan.scheduler_class == name
    edm = "edm" if CLASSES[name].family == "edm" else "epsilon"
    assert plan.prediction == CLASSES[name].fixed.get("prediction_type", edm)
    assert trace_plan(plan).step_count == 10
    if name in CONTINUOUS:
        return
    if CLASSES[name].fixed.get("timestep_spacing") == "lcm":
        assert plan.timesteps == (
            999.0,
            899.0,
            799.0,
            699.0,
            599.0,
            499.0,
            399.0,
            299.0,
            199.0,
            99.0,
        )
        return
    first = 900 if CLASSES[name].defaults.get("timestep_spacing") == "leading" else 999
    assert plan.timesteps[0] == first


@pytest.mark.parametrize("schedule", [None, *(name for name in SCHEDULES if name not in NAMED)])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_and_schedule_works_on_a_foreign_config(
    sampler: str, schedule: str | None
) -> None:
    plan = from_config(PNDM, 6, sampler=sampler, schedule=schedule)
    program = trace_plan(plan)
    assert program.step_count == 6
    assert program.name == sampler
    assert program.initial_scale == plan.schedule.initial_scale


def test_a_foreign_config_gives_its_betas_and_says_nothing_of_clipping() -> None:
    ddim = from_config(PNDM, 10, sampler="ddim", eta=0.3)
    assert options(ddim) == {"eta": 0.3, "clip": None}
    assert ddim.schedule.sigmas[-1] == pytest.approx(0.0292, abs=1e-4)  # set_alpha_to_one false
    unheard = {"_class_name": "EulerDiscreteScheduler", **SD}
    assert options(from_config(unheard, 10, sampler="ddim"))["clip"] is None
    assert options(from_config({**SD, "_class_name": "DDIMScheduler"}, 10))["clip"] == 1.0
    clipped = {**unheard, "clip_sample": True, "clip_sample_range": 2}
    assert options(from_config(clipped, 10, sampler="ddim"))["clip"] == 2.0


def test_what_a_named_sampler_does_not_know_does_not_matter() -> None:
    odd = {
        **SD,
        "_class_name": "NobodysScheduler",
        "solver_order": 3,
        "solver_type": "bh2",
        "algorithm_type": "sde-dpmsolver++",
        "thresholding": True,
        "use_beta_sigmas": True,
        "final_sigmas_type": "sigma_min",
        "something_new": {"a": 1},
    }
    plan = from_config(odd, 20, sampler="dpmpp_2m")
    assert options(plan)["order"] == 2
    assert plan.schedule.sigmas[-1] > 0.0
    euler = {**odd, "_class_name": "EulerDiscreteScheduler"}
    assert from_config(euler, 20, sampler="annealed_langevin").sampler == "annealed_langevin"
    with pytest.raises(UnsupportedModelError, match="interpolation_type"):
        from_config({**euler, "interpolation_type": "cubic"}, 20, sampler="euler")
    with pytest.raises(UnsupportedModelError, match=r"NobodysScheduler.*supported are DDIM"):
        from_config(odd, 20)


def test_defaults_of_another_class_are_not_inherited() -> None:
    assumed = {**PNDM, "timestep_spacing": "leading", "_use_default_values": ["timestep_spacing"]}
    assert from_config(assumed, 5, sampler="euler").timesteps[0] == 999.0
    assumed["_use_default_values"] = 3
    assert from_config(assumed, 5, sampler="euler").timesteps[0] == 801.0


def test_naming_the_class_own_sampler_changes_nothing() -> None:
    config = {**PNDM, "_class_name": "DPMSolverMultistepScheduler"}
    assert from_config(config, 7) == from_config(config, 7, sampler="dpmpp_2m")


def test_dpm_solver_options() -> None:
    config = {**SD, "_class_name": "DPMSolverMultistepScheduler"}
    assert options(from_config(config, 20)) == {
        "order": 2,
        "euler_at_final": False,
        "result_scale": 1.0,
    }
    assert options(from_config(config, 14))["euler_at_final"] is True
    last = options(from_config({**config, "final_sigmas_type": "sigma_min"}, 20))
    assert last["result_scale"] == pytest.approx(1 / np.sqrt(1 + 0.0292**2), rel=1e-5)


def test_eta_is_ddims_alone() -> None:
    assert from_config(PNDM, 5, sampler="euler", eta=0.7) == from_config(PNDM, 5, sampler="euler")
    assert from_config(PNDM, 5, sampler="ddim", eta=0.7) != from_config(PNDM, 5, sampler="ddim")
    for eta in (-0.1, float("nan"), float("inf")):
        with pytest.raises(InvalidRequestError, match="eta"):
            from_config(PNDM, 5, sampler="ddim", eta=eta)


def test_initial_scales_are_those_of_the_class_in_the_variance_exploding_frame() -> None:
    def scale(sampler: str, spacing: str) -> float:
        plan = from_config(PNDM, 10, sampler=sampler, schedule=spacing)
        return plan.schedule.initial_scale / plan.schedule.sigmas[0]

    assert scale("euler", "linspace") == 1.0
    assert scale("euler", "trailing") == 1.0
    assert scale("euler", "leading") > 1.0
    for sampler in ("ddim", "ddpm", "dpmpp_2m"):
        plan = from_config(PNDM, 10, sampler=sampler)
        expected = np.sqrt(1 + plan.schedule.sigmas[0] ** 2)
        assert plan.schedule.initial_scale == pytest.approx(expected)


def test_timesteps_and_sigmas_of_the_caller() -> None:
    # The published "align your steps" table for SD 1.5.
    told = [999, 850, 736, 645, 545, 455, 343, 233, 124, 24]
    plan = from_config(PNDM, 50, sampler="dpmpp_2m", timesteps=told)
    assert plan.timesteps == tuple(map(float, told))
    assert plan.schedule.sigmas[-1] == 0.0
    levels = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.0]
    by_sigma = from_config(PNDM, 50, sampler="euler", sigmas=levels)
    assert by_sigma.schedule.sigmas == tuple(levels)
    np.testing.assert_allclose(by_sigma.timesteps, told, atol=6)
    assert from_config(PNDM, 50, sampler="ddim", timesteps=told).schedule.targets is None


def test_a_schedule_of_the_caller() -> None:
    table = TrainingTable(**SD)
    mine = schedules.karras(4, 0.1, 10.0, table=table)
    plan = from_config(PNDM, 50, sampler="dpmpp_2m", schedule=mine)
    assert plan.schedule is mine
    assert isinstance(plan.schedule, Schedule)


def test_latent_scales() -> None:
    assert from_config(PNDM, 3, sampler="euler").latent_scales == (1.0,) * 3
    assert from_config(PNDM, 3, sampler="ddim").latent_scales == (1.0,) * 3
    plan = from_config(PNDM, 3, sampler="dpmpp_2m")
    expected = 1 / np.sqrt(1 + np.array(plan.schedule.sigmas[1:]) ** 2)
    np.testing.assert_allclose(plan.latent_scales, expected)
    assert plan.latent_scales[-1] == 1.0
    open_end = from_config({**PNDM, "final_sigmas_type": "sigma_min"}, 3, sampler="dpmpp_2m")
    assert open_end.latent_scales[-1] == 1.0
    assert open_end.latent_scales[0] < 1.0


def test_tails_keep_the_plan() -> None:
    plan = from_config(PNDM, 10, sampler="dpmpp_2m")
    tail = plan.tail(4)
    assert tail.timesteps == plan.timesteps[4:]
    assert tail.options == plan.options
    assert trace_plan(tail).step_count == 6
    ddim = from_config({**PNDM, "timestep_spacing": "linspace"}, 7, sampler="ddim")
    assert ddim.tail(2).schedule.targets == ddim.schedule.targets[2:]


def test_a_sampler_of_the_caller() -> None:
    def mine(m: Any, x: Any, sigmas: Any, levels: Any = ()) -> Any:
        for s in sigmas[:-1]:
            x = m.denoise(x, s)
            m.step(x)
        return x

    plan = from_config(PNDM, 4, sampler=mine, schedule="karras")
    assert trace_plan(plan).name == "mine"
    assert trace_plan(plan) is trace_plan(from_config(PNDM, 4, sampler=mine, schedule="karras"))
    unhashable = from_config(PNDM, 4, sampler=mine, sampler_options={"levels": [1, 2]})
    assert trace_plan(unhashable) == trace_plan(unhashable)


def test_sampler_options_pass_and_override() -> None:
    plan = from_config(PNDM, 4, sampler="euler", sampler_options={"s_churn": 3.0})
    assert options(plan) == {"s_churn": 3.0}
    assert trace_plan(plan).draw_count == 4
    assert (
        options(from_config(PNDM, 4, sampler="ddim", sampler_options={"clip": 0.5}))["clip"] == 0.5
    )
    with pytest.raises(InvalidRequestError, match="'s_chum' is not known"):
        trace_plan(from_config(PNDM, 4, sampler="euler", sampler_options={"s_chum": 3.0}))


def test_plans_are_values_and_traces_are_kept() -> None:
    plan = from_config(PNDM, 8, sampler="dpmpp_2m", schedule="karras")
    again = pickle.loads(pickle.dumps(plan))
    assert again == plan
    assert hash(again) == hash(plan)
    assert trace_plan(again) is trace_plan(plan)


THRESHOLD = {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 1.5}


@pytest.mark.parametrize("name", [n for n in CLASSES if "thresholding" in CLASSES[n].defaults])
def test_thresholding_is_an_option_of_every_sampler(name: str) -> None:
    plan = from_config({**SD, **THRESHOLD, "_class_name": name}, 4)
    thresholds = [i for i in trace_plan(plan).instructions if isinstance(i, Threshold)]
    if name == "TCDScheduler":  # diffusers' own does not look at it
        assert not thresholds
        return
    assert options(plan)["threshold"] == (0.9, 1.5)
    assert options(plan).get("clip") is None
    assert len(thresholds) == trace_plan(plan).denoise_count
    off = from_config({**SD, **THRESHOLD, "thresholding": False, "_class_name": name}, 4)
    assert "threshold" not in options(off)
    unread = {**SD, "_class_name": name, "sample_max_value": 0}
    assert options(from_config(unread, 4)) == options(off)
    for key, value in (("dynamic_thresholding_ratio", 1.5), ("sample_max_value", 0)):
        with pytest.raises(UnsupportedModelError, match=key):
            from_config({**SD, **THRESHOLD, "_class_name": name, key: value}, 4)


def test_unipc_of_eps_does_not_threshold() -> None:
    config = {**SD, **THRESHOLD, "_class_name": "UniPCMultistepScheduler", "predict_x0": False}
    assert "threshold" not in options(from_config(config, 4))


@pytest.mark.parametrize("name", CLASSES)
def test_every_number_of_steps(name: str) -> None:
    for n in (1, 2, 499, 1000):
        config = {"_class_name": name, **SD, "clip_sample": False, "steps_offset": 1}
        config["original_inference_steps"] = 1000
        assert trace_plan(from_config(config, n)).step_count == n


def test_pndm_starts_as_its_config_says() -> None:
    skipped = from_config(PNDM, 10)
    assert skipped.sampler == "plms"
    assert trace_plan(skipped).denoise_count == 11
    full = from_config({**PNDM, "skip_prk_steps": False}, 10)
    assert full.sampler == "pndm"
    assert trace_plan(full).denoise_count == 19
    assert from_config(PNDM, 10, sampler="plms") == skipped
    told = trace_plan(skipped).noise_levels
    assert told[:4] == (901.0, 801.0, 801.0, 701.0)
    assert skipped.latent_scales == (1.0,) * 10


@pytest.mark.parametrize("start", [1, 2, 5, 9])
def test_plms_in_the_middle_runs_diffusers_list_from_there(start: int) -> None:
    plan = from_config(PNDM, 10)
    told = trace_plan(plan).noise_levels
    late = plan.tail(start)
    assert trace_plan(late).noise_levels == told[start:]
    assert options(late)["late"]
    # the first step is made again from where the second timestep's predecessor stands
    level = plan.schedule.table.sigma_of([told[start + 1] + 100])[0]
    assert options(late)["restart"] == pytest.approx(level, rel=1e-12)
    assert plan.tail(0) is plan


def test_dpm_solver_algorithms_are_samplers_of_their_own() -> None:
    config = {**SD, "_class_name": "DPMSolverMultistepScheduler"}

    def sampler(**settings: Any) -> Any:
        return from_config({**config, **settings}, 20).sampler

    assert sampler() == sampler(solver_order=1) == sampler(solver_type="bh2") == "dpmpp_2m"
    assert sampler(algorithm_type="deis") == "dpmpp_2m"
    assert sampler(algorithm_type="sde-dpmsolver++", solver_type="heun") == "dpmpp_2m_sde"
    assert sampler(solver_order=3) == sampler(solver_type="heun") == "dpm_multistep"
    first = {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"}
    assert sampler(**first) == "dpm_multistep"
    assert options(from_config({**config, **first}, 20))["predict"] == "eps"
    few = from_config({**config, "solver_order": 3}, 14)
    assert options(few)["lower_order_final"] == 2
    assert options(from_config({**config, "solver_order": 3}, 15))["lower_order_final"] == 0


def test_singlestep_has_no_spacing() -> None:
    config = {**SD, "_class_name": "DPMSolverSinglestepScheduler", "timestep_spacing": "leading"}
    assert from_config(config, 10).timesteps[0] == 999.0


@pytest.mark.parametrize("name", ["LCM", "TCD"])
def test_distilled_models_have_so_many_steps(name: str) -> None:
    config = {**SD, "_class_name": f"{name}Scheduler", "original_inference_steps": 8}
    assert from_config(config, 8).timesteps[-1] == 124.0
    for steps in (0, 9, 2.5):
        with pytest.raises(InvalidRequestError, match=r"1\.\.8 \(original_inference_steps\)"):
            from_config(config, steps)  # type: ignore[arg-type]
    assert from_config(config, 20, schedule="trailing").timesteps[0] == 999.0
    if name == "TCD":
        with pytest.raises(InvalidRequestError, match="eta"):
            from_config(config, 4, eta=1.5)


def test_deis_ends_where_the_table_ends() -> None:
    config = {**SD, "_class_name": "DEISMultistepScheduler", "final_sigmas_type": "zero"}
    plan = from_config(config, 5)
    assert plan.schedule.sigmas[-1] == pytest.approx(0.0292, abs=1e-4)
    assert options(plan)["result_scale"] < 1.0


@pytest.mark.parametrize("sampler", ["euler", "ddim", "tcd", "dpmpp_2m"])
@pytest.mark.parametrize("schedule", NAMED)
def test_named_schedules(schedule: str, sampler: str) -> None:
    for steps in (1, 6, 10, 1000):
        plan = from_config(PNDM, steps, sampler=sampler, schedule=schedule)
        sigmas = np.array(plan.schedule.sigmas)
        assert sigmas[-1] == 0.0
        assert np.all(np.diff(sigmas) < 0)
        assert sampler == "tcd" or plan.schedule.targets is None
        if schedule not in ("ddim_uniform", "beta_timesteps"):
            assert len(sigmas) == steps + 1
    for wrong in (0, 1001, 2.5, True):
        with pytest.raises(InvalidRequestError, match="num_inference_steps"):
            from_config(PNDM, wrong, sampler=sampler, schedule=schedule)  # type: ignore[arg-type]


def test_named_schedules_tell_whole_timesteps_where_they_are() -> None:
    plan = from_config(PNDM, 7, sampler="euler", schedule="simple")
    assert plan.timesteps == (999.0, 857.0, 714.0, 571.0, 428.0, 285.0, 142.0)
    uniform = from_config(PNDM, 10, sampler="euler", schedule="ddim_uniform").timesteps
    assert uniform == tuple(float(1 + 100 * i) for i in range(9, -1, -1))


def test_tcd_without_noise_on_a_curve_is_deterministic() -> None:
    plan = from_config(PNDM, 5, sampler="tcd", schedule="karras", eta=0.0)
    assert plan.schedule.targets is None
    assert trace_plan(plan).draw_count == 0
    assert trace_plan(from_config(PNDM, 5, sampler="tcd", eta=0.0)).draw_count == 0
    assert trace_plan(from_config(PNDM, 5, sampler="tcd", eta=0.3)).draw_count == 4


def test_what_a_network_predicts_comes_with_some_classes() -> None:
    assert prediction_of({"_class_name": "EDMEulerScheduler"}) == "edm"
    v = {"_class_name": "EDMDPMSolverMultistepScheduler", "prediction_type": "v_prediction"}
    assert prediction_of(v) == "v_prediction"
    assert prediction_of({"prediction_type": "flow_prediction"}) == "flow"
    assert prediction_of({"_class_name": "FlowMatchEulerDiscreteScheduler"}) == "flow"
    assert (
        prediction_of({"_class_name": "EDMEulerScheduler", "prediction_type": "epsilon"}) == "edm"
    )
    assert prediction_of({"_class_name": "DDIMScheduler"}) == "epsilon"
    assert prediction_of({"_class_name": [], "prediction_type": "original_sample"}) == "sample"
