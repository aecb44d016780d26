"""Calls that are plainly wrong end in a typed error that names the parameter, at every door."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import textopia_fast as tx
from tests.support.networks import tanh_network
from textopia_fast.samplers import TrainingTable, from_config, trace_plan

TINY_SD = Path(__file__).parent / "golden" / "tiny_sd"
LEVELS = tx.schedules.karras(3, 0.1, 1.0)
TABLE = TrainingTable()
DDIM = {"_class_name": "DDIMScheduler"}


@pytest.fixture(scope="module")
def pipe() -> tx.Pipeline:
    return tx.Pipeline.from_pretrained(TINY_SD, threads=1)


@pytest.fixture(scope="module")
def net() -> tx.Denoiser:
    return tx.Denoiser(tanh_network(has_condition=False), threads=1)


def refused(call: Callable[[], Any], kind: type[tx.TextopiaError], words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


NOISE = {
    "no seed": (lambda: tx.Noise.torch([]), "seed"),
    "None": (lambda: tx.Noise.torch(None), "seed: got None"),
    "fraction": (lambda: tx.Noise.cuda(1.5), "seed: got 1.5"),
    "text": (lambda: tx.Noise.philox("7"), "seed: got '7'"),
    "list of texts": (lambda: tx.Noise.torch(["7"]), "seed: got '7'"),
    "negative": (lambda: tx.Noise.torch(-1), "seed: got -1"),
    "many digits": (lambda: tx.Noise.torch(10**5000), "seed: got <int>"),
    "kind": (lambda: tx.Noise("mt", (1,)), "noise: got 'mt', allowed are torch"),
    "scalar values": (lambda: tx.Noise.given(3.0), r"noise: shape \(\)"),
    "no values": (lambda: tx.Noise.given(np.zeros((0, 2))), "at least one draw"),
    "values of text": (lambda: tx.Noise.given("a"), "noise: dtype"),
    "no images": (lambda: tx.Noise.torch(1).stream(0), "image_count: got 0"),
    "images of text": (lambda: tx.Noise.torch(1).stream("2"), "image_count: got '2'"),
    "wrong number": (lambda: tx.Noise.torch([1, 2]).stream(3), "2 seeds for 3 images"),
    "shape": (lambda: tx.Noise.torch(1).randn(3), "shape: got 3"),
    "empty shape": (lambda: tx.Noise.torch(1).randn(()), "shape: got"),
    "shape of texts": (lambda: tx.Noise.torch(1).randn((2, "a")), "shape: got 'a'"),
}

TRACE = {
    "no name": (lambda: tx.trace(None, LEVELS), "sampler: got None"),
    "no levels": (lambda: tx.trace("euler", None), "sigmas: got None"),
    "text for levels": (lambda: tx.trace("euler", "karras"), "sigmas: got 'karras'"),
    "prediction": (lambda: tx.trace("euler", LEVELS, []), "prediction: got"),
    "unknown option": (lambda: tx.trace("euler", LEVELS, s_chum=1), "allowed are s_churn, s_tmin"),
    "reserved option": (
        lambda: trace_plan(from_config(DDIM, 3, sampler_options={"sampler": "heun"})),
        "ddim: option 'sampler' is not known, allowed are eta, clip, targets",
    ),
    "option of text": (lambda: tx.trace("euler", LEVELS, s_churn="a"), "s_churn: got 'a'"),
    "option None": (lambda: tx.trace("euler", LEVELS, s_churn=None), "s_churn: got None"),
    "option array": (lambda: tx.trace("ddim", LEVELS, eta=np.ones(2)), "eta: got array"),
    "flag": (lambda: tx.trace("langevin", LEVELS, denoise="no"), "denoise: got 'no'"),
    "count": (lambda: tx.trace("annealed_langevin", LEVELS, n_steps=0), "n_steps: got 0"),
    "order": (lambda: tx.trace("dpmpp_2m", LEVELS, order=3), "order: got 3, allowed are 1, 2"),
    "targets": (lambda: tx.trace("ddim", LEVELS, targets=[1.0]), "targets: got .* one per step"),
    "variance": (lambda: tx.trace("ddpm", LEVELS, variance=3), "variance: got 3"),
    "arguments": (lambda: tx.trace(lambda m, x: x, LEVELS), r"functions \(m, x, sigmas"),
    "a type": (lambda: tx.trace(dict, LEVELS), r"functions \(m, x, sigmas"),
    "missing": (lambda: tx.trace(lambda m, x, sigmas, *, k: x, LEVELS), "'k' is not given"),
    "sigma": (lambda: tx.trace(lambda m, x, s: m.denoise(x, "a"), LEVELS), "sigma: got 'a'"),
    "bounds": (lambda: tx.trace(lambda m, x, s: m.clamp(x, None, 1), LEVELS), "m.clamp: got None"),
    "langevin sigma": (lambda: tx.langevin("a", 3), "sigma: got 'a'"),
    "langevin eta": (lambda: tx.langevin(1.0, 3, eta="a"), "eta: got 'a'"),
    "langevin scale": (lambda: tx.langevin(1.0, 3, initial_scale="a"), "initial_scale: got 'a'"),
    "plan": (lambda: trace_plan(None), "plan: got None"),
}

SCHEDULES = {
    "count": (lambda: tx.schedules.karras("a", 0.1, 1.0), "n: got 'a'"),
    "too many": (lambda: tx.schedules.karras(10**9, 0.1, 1.0), "n: got 1000000000"),
    "sigma": (lambda: tx.schedules.karras(3, None, 1.0), "sigma_min: got None"),
    "rho": (lambda: tx.schedules.karras(3, 0.1, 1.0, rho=0), "rho: got 0"),
    "table": (lambda: tx.schedules.karras(3, 0.1, 1.0, table=3), "table: got 3"),
    "no table": (lambda: tx.schedules.discrete(3, None), "table: got None"),
    "spacing": (lambda: tx.schedules.discrete(3, TABLE, spacing=None), "spacing: got None"),
    "offset": (lambda: tx.schedules.discrete(3, TABLE, steps_offset="1"), "steps_offset: got"),
    "scale": (lambda: tx.Schedule((1.0, 0.0), (1.0,), "a"), "initial_scale: got 'a'"),
    "no sigmas": (lambda: tx.Schedule(None, (1.0,), 1.0), "sigmas: got None"),
    "no timesteps": (lambda: tx.Schedule((1.0, 0.0), None, 1.0), "timesteps: got None"),
    "tail": (lambda: LEVELS.tail("a"), "start: got 'a'"),
    "vp": (lambda: tx.schedules.vp_sigmas(3, beta_d=1e9), "beta_d: got"),
    "steps": (lambda: TrainingTable(steps="a"), "steps: got 'a'"),
    "betas": (lambda: TrainingTable(beta_start=None), "betas: got"),
    "terminal": (lambda: TrainingTable(terminal_alpha_bar="a"), "terminal_alpha_bar: got 'a'"),
    "config": (lambda: from_config(None, 3), "config: got None"),
    "steps of a config": (lambda: from_config(DDIM, "a"), "num_inference_steps: got 'a'"),
    "eta": (lambda: from_config(DDIM, 3, eta=None), "eta: got None"),
    "sigmas": (lambda: from_config(DDIM, 3, sigmas=3), "sigmas: got 3"),
    "timesteps": (lambda: from_config(DDIM, 3, timesteps=5), "timesteps: got 5"),
    "schedule": (lambda: from_config(DDIM, 3, schedule=3), "schedule: got 3, allowed are leading"),
    "schedule for sigma": (lambda: from_config(DDIM, 3, schedule=LEVELS), "allowed .* timestep"),
    "options": (lambda: from_config(DDIM, 3, sampler_options=["a"]), "sampler_options: got"),
}


@pytest.mark.parametrize(
    ("call", "words"),
    [case for cases in (NOISE, TRACE, SCHEDULES) for case in cases.values()],
    ids=[name for cases in (NOISE, TRACE, SCHEDULES) for name in cases],
)
def test_values(call: Callable[[], Any], words: str) -> None:
    refused(call, tx.InvalidRequestError, words)


MODELS = {
    "threads of text": ({"threads": "a"}, tx.ConfigurationError, "threads: got 'a'"),
    "negative threads": ({"threads": -1}, tx.ConfigurationError, "threads: got -1"),
    "half a thread": ({"threads": 1.5}, tx.ConfigurationError, "threads: got 1.5"),
    "threads True": ({"threads": True}, tx.ConfigurationError, "threads: got True"),
    "very many": ({"threads": 10**30}, tx.ConfigurationError, "threads: got 1000"),
    "device": ({"device": np.zeros(2)}, tx.ConfigurationError, "device: got array"),
    "provider": ({"provider": []}, tx.ConfigurationError, r"provider: got \[\]"),
    "None": ({"name_or_path": None}, tx.ModelNotFoundError, "None"),
    "number": ({"name_or_path": 3}, tx.ModelNotFoundError, "3"),
    "bytes": ({"name_or_path": b"tiny-shapes"}, tx.ModelNotFoundError, "neither"),
    "empty": ({"name_or_path": ""}, tx.ModelNotFoundError, "''"),
}


@pytest.mark.parametrize("name", MODELS)
def test_opening(name: str) -> None:
    options, kind, words = MODELS[name]
    refused(lambda: tx.Pipeline.from_pretrained(**{"name_or_path": TINY_SD} | options), kind, words)


def test_a_pipeline_is_made_by_from_pretrained() -> None:
    refused(lambda: tx.Pipeline("tiny-shapes"), tx.InvalidRequestError, "directory: got")


DENOISERS = {
    "no graph": ({"graph": None}, "graph: got None"),
    "prediction": ({"prediction": []}, "prediction: got"),
    "roles": ({"inputs": 3}, "inputs: got 3"),
    "unknown role": ({"inputs": {"smaple": "x"}}, "allowed are sample, noise_level, output"),
    "role of a number": ({"inputs": {"sample": 3}}, "got 3, allowed is the name"),
    "images per run": ({"images_per_run": -1}, "images_per_run: got -1"),
}


@pytest.mark.parametrize("name", DENOISERS)
def test_denoisers(name: str) -> None:
    options, words = DENOISERS[name]
    given = {"graph": tanh_network(has_condition=False), "threads": 1} | options
    refused(lambda: tx.Denoiser(given.pop("graph"), **given), tx.InvalidRequestError, words)


SAMPLE = {
    "denoiser": ({"denoiser": None}, "denoiser: got None"),
    "program": ({"program": "euler"}, "program: got 'euler'"),
    "foreign program": (
        {"program": tx.trace("euler", [1.0, 0.0], "score")},
        "predict score, allowed here is epsilon",
    ),
    "x": ({"x": None}, "x: "),
    "x of text": ({"x": "a"}, "x: "),
    "scalar": ({"x": 1.0}, r"x: shape \(\)"),
    "cond": ({"cond": [1]}, r"cond: got \[1\]"),
    "cond by number": ({"cond": {3: np.zeros(2)}}, "cond: got"),
    "uncond": ({"uncond": "x"}, "uncond: got 'x'"),
    "guidance": ({"guidance": None}, "guidance: got None"),
    "guidance of text": ({"guidance": "7"}, "guidance: got '7'"),
    "no guidance": ({"guidance": []}, "guidance"),
    "noise": ({"noise": "torch"}, "noise: got 'torch'"),
    "cancel": ({"cancel": True}, "cancel: got True"),
    "deadline": ({"deadline": "soon"}, "deadline: got 'soon'"),
    "progress": ({"progress": print}, "progress: got"),
    "on_step": ({"on_step": 3}, "on_step: got 3"),
}


@pytest.mark.parametrize("name", SAMPLE)
def test_sampling(net: tx.Denoiser, name: str) -> None:
    options, words = SAMPLE[name]
    x = np.zeros((2, 4, 3, 3), np.float32)
    given = {"denoiser": net, "x": x, "program": tx.trace("euler", [1.0, 0.0])} | options
    refused(lambda: tx.sample(**given), tx.InvalidRequestError, words)


CALLS = {
    "nothing": ({"prompt": None}, "prompt: got neither"),
    "both": ({"prompt_embeds": np.zeros((1, 8, 8))}, "prompt: got both"),
    "cancel": ({"cancel": "x"}, "cancel: got 'x'"),
    "progress": ({"progress": 3}, "progress: got 3"),
    "preview": ({"preview": "bar"}, "preview: got 'bar'"),
    "huge guidance": ({"guidance_scale": 10**400}, "guidance_scale: got 1000"),
    "seed array": ({"seed": np.array([[1]])}, r"seed: got array\(\[\[1\]\]\)"),
    "sampler": ({"sampler": []}, "sampler: got"),
    "sampler arguments": ({"sampler": lambda x: x}, r"functions \(m, x, sigmas"),
    "schedule": ({"schedule": [1.0, 0.0]}, "schedule: got"),
    "options": ({"sampler_options": 3}, "sampler_options: got 3"),
    "unknown option": ({"sampler": "euler", "sampler_options": {"s": 1}}, "allowed are s_churn"),
    "bad option": ({"sampler": "euler", "sampler_options": {"s_churn": []}}, "s_churn: got"),
    "timesteps": ({"timesteps": 3}, "timesteps: got 3"),
    "embeddings": ({"prompt": None, "prompt_embeds": 1.0}, r"prompt_embeds: shape \(\)"),
    "no embeddings": ({"prompt": None, "prompt_embeds": np.zeros((0, 3, 3))}, "prompt_embeds: "),
    "negatives": ({"negative_prompt_embeds": 1.0, "guidance_scale": 5.0}, "negative_prompt_embeds"),
}


@pytest.mark.parametrize("name", CALLS)
def test_calls(pipe: tx.Pipeline, name: str) -> None:
    options, words = CALLS[name]
    given = {"prompt": "a", "num_inference_steps": 1, "sampler": "ddim"} | options
    refused(lambda: pipe(**given), tx.InvalidRequestError, words)


@pytest.mark.parametrize("duplicate", [pickle.dumps, copy.copy, copy.deepcopy])
def test_what_holds_graphs_cannot_be_copied(
    pipe: tx.Pipeline, net: tx.Denoiser, duplicate: Callable[[Any], Any]
) -> None:
    for holder in (pipe, net):
        refused(lambda holder=holder: duplicate(holder), tx.EngineStateError, "cannot be copied")


def test_values_are_values() -> None:
    for make in (lambda: tx.Noise.torch([1, 2]), lambda: tx.Noise.given(np.ones((2, 3)))):
        noise = make()
        assert pickle.loads(pickle.dumps(noise)) == noise == make()
        assert hash(noise) == hash(make())
    assert tx.Noise.torch(1) != tx.Noise.torch([1])
    values = np.zeros((1, 2), np.float32)
    noise = tx.Noise.given(values)
    values[:] = 1.0  # the caller's array may change, the recipe does not
    assert not noise.values.any()


def test_eta_of_a_sampler_that_diffusers_eta_does_not_reach(pipe: tx.Pipeline) -> None:
    def latents(**options: Any) -> np.ndarray:
        result = pipe("a", num_inference_steps=3, seed=1, output_type="latent", **options)
        return result.images

    plain = latents(sampler="euler_ancestral", sampler_options={"eta": 0.0})
    np.testing.assert_allclose(plain, latents(sampler="euler"), rtol=1e-5, atol=1e-5)


def test_a_deadline_far_away_is_none(net: tx.Denoiser) -> None:
    x = np.zeros((1, 4, 3, 3), np.float32)
    program = tx.trace("euler", [1.0, 0.0])
    expected = tx.sample(net, x, program)
    np.testing.assert_array_equal(tx.sample(net, x, program, deadline=1e300), expected)


def test_seeds_may_come_in_an_array(pipe: tx.Pipeline) -> None:
    options = {"num_inference_steps": 1, "sampler": "ddim", "output_type": "latent"}
    given = pipe(["a", "b"], seed=np.array([3, 4]), **options)
    assert given.seeds == (3, 4)
    np.testing.assert_array_equal(given.images, pipe(["a", "b"], seed=[3, 4], **options).images)


def test_a_default_may_be_given() -> None:
    given = tx.trace("euler", LEVELS, s_churn=1.0, s_tmax=float("inf"))
    assert given == tx.trace("euler", LEVELS, s_churn=1.0)
