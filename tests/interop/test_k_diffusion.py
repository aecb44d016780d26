"""k-diffusion's functions: recorded runs of the original, closed forms, the native loop."""

from __future__ import annotations

import inspect
import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import textopia_fast as tx
from tests.golden.sampler_cases import (
    SD,
    SHAPE,
    Case,
    Draws,
    dpm_fast_cases,
    initial_noise,
    k_diffusion_cases,
    network,
)
from tests.samplers.test_parity_golden import golden
from tests.support.networks import tanh_formula, tanh_network
from textopia_fast import errors
from textopia_fast.interop import k_diffusion
from textopia_fast.interop.k_diffusion import FUNCTIONS

CASES = k_diffusion_cases()
EVERY = list(FUNCTIONS)
SIGMAS = k_diffusion.get_sigmas_karras(6, 0.05, 12.0, device=None)
TABLE = tx.schedules.TrainingTable(**SD)


def numpy_model(x: Any, sigma: Any) -> Any:
    """The network of the recorded runs, in k-diffusion's form."""
    s = sigma.reshape(-1, 1, 1, 1)
    return x - s * network(x / (1 + s**2) ** 0.5, s, np.tanh, np.cos)


def constant(x: Any, sigma: Any, value: float = 0.25) -> Any:
    """A model that knows the answer."""
    assert sigma.shape == (len(x),)
    return x * 0 + value


def noise_sampler(name: str) -> dict[str, Any]:
    if "noise_sampler" not in FUNCTIONS[name].options:
        return {}
    draws = Draws()
    return {"noise_sampler": lambda start, end: draws()}


def call(name: str, model: Any, x: Any, sigmas: Any = SIGMAS, **options: Any) -> Any:
    return getattr(k_diffusion, name)(model, x, sigmas, disable=True, **options)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_recorded_runs_of_the_original(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    if case.source not in FUNCTIONS:
        pytest.fail(f"{case.source} was recorded and is not offered")
    config = dict(case.config)
    make = getattr(k_diffusion, f"get_sigmas_{config.pop('schedule')}")
    sigmas = make(case.steps, **config, device=None)
    draws = Draws()
    monkeypatch.setattr(np.random, "standard_normal", lambda shape: draws())
    seen: list[dict[str, Any]] = []
    x = initial_noise() * sigmas[0]
    got = call(case.source, numpy_model, x, sigmas, callback=seen.append, **case.options)
    expected = golden(case)["trajectory"][0]
    # Their sigmas are float32, too; 1e-4 is what that is worth over a run.
    assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()
    assert got.dtype == np.float32
    assert [entry["i"] for entry in seen] == list(range(case.steps))
    assert {*seen[0]} == {"x", "i", "sigma", "sigma_hat", "denoised"}
    assert all(float(e["sigma_hat"]) >= 0.9999 * float(e["sigma"]) > 0 for e in seen)
    if not case.options.get("s_churn"):
        np.testing.assert_array_equal(seen[0]["x"], x)


FAST = dpm_fast_cases()


@pytest.mark.parametrize("case", FAST, ids=[case.name for case in FAST])
def test_recorded_runs_of_dpm_fast(case: Case) -> None:
    draws, seen = Draws(), []
    got = k_diffusion.sample_dpm_fast(
        numpy_model,
        initial_noise() * np.float32(14.6),
        **case.config,
        n=case.steps,
        callback=seen.append,
        disable=True,
        noise_sampler=lambda a, b: draws(),
        **case.options,
    )
    expected = golden(case)["trajectory"][0]
    assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()
    assert len(seen) == case.steps // 3 + 1
    assert float(seen[0]["sigma"]) == pytest.approx(14.6)


def test_dpm_fast_runs_natively() -> None:
    denoiser = tx.Denoiser(tanh_network(), noise_input="sigma", threads=1)
    context = np.random.default_rng(3).standard_normal((3, 5, 4)).astype(np.float32)
    x = np.random.default_rng(4).standard_normal((3, 4, 3, 2)).astype(np.float32) * 10

    def model(x: Any, sigma: Any) -> Any:
        s = float(sigma[0])
        return x - s * tanh_formula(x / (1 + s * s) ** 0.5, s, context)

    expected = k_diffusion.sample_dpm_fast(model, x, 0.1, 10.0, 8, disable=True)
    got = k_diffusion.sample_dpm_fast(
        denoiser, x, 0.1, 10.0, 8, extra_args={"cond": {"context": context}}, disable=True
    )
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "arguments", [(0.0, 1.0, 5), (2.0, 1.0, 5), (0.1, float("inf"), 5), (0.1, 1.0, 0)]
)
def test_dpm_fast_refuses(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(errors.InvalidRequestError):
        k_diffusion.sample_dpm_fast(numpy_model, initial_noise(), *arguments)


def test_levels_by_their_formulas() -> None:
    ramp = np.arange(5) / 4
    low, high = 0.1, 10.0
    expected = (high ** (1 / 7) + ramp * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    got = k_diffusion.get_sigmas_karras(5, low, high, device=None)
    np.testing.assert_allclose(got, [*expected, 0], rtol=1e-6)
    got = k_diffusion.get_sigmas_exponential(5, low, high, device=None)
    np.testing.assert_allclose(got, [*np.geomspace(high, low, 5), 0], rtol=1e-6)
    got = k_diffusion.get_sigmas_polyexponential(5, low, high, rho=2.0, device=None)
    np.testing.assert_allclose(got, [*(low * (high / low) ** ((1 - ramp) ** 2)), 0], rtol=1e-6)
    got = k_diffusion.get_sigmas_vp(5, 19.9, 0.1, 1e-3, device=None)
    t = 1 + ramp * (1e-3 - 1)
    np.testing.assert_allclose(got, [*np.sqrt(np.exp(19.9 * t**2 / 2 + 0.1 * t) - 1), 0], rtol=1e-6)
    assert got.dtype == np.float32


@pytest.mark.parametrize("name", EVERY)
def test_a_model_that_knows_the_answer(name: str) -> None:
    """Down to 0 every sampler ends there, whatever the noise."""
    x = initial_noise() * SIGMAS[0]
    got = call(name, constant, x, extra_args={"value": -0.75})
    np.testing.assert_allclose(got, -0.75, atol=1e-5)


@pytest.mark.parametrize("name", [n for n in EVERY if "s_churn" in FUNCTIONS[n].options])
def test_the_slope_of_a_point(name: str) -> None:
    """To a last level > 0, x goes straight to the point: x = p + sigma/sigma_0 * (x_0 - p)."""
    sigmas = SIGMAS[:-1]
    x = initial_noise() * sigmas[0]
    got = call(name, constant, x, sigmas)
    np.testing.assert_allclose(got, 0.25 + sigmas[-1] / sigmas[0] * (x - 0.25), atol=1e-5)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("noise_input", ["sigma", "timestep"])
def test_native_equals_callable(name: str, noise_input: str) -> None:
    """The same network as an ONNX graph and in NumPy, guidance and noise included."""
    denoiser = tx.Denoiser(tanh_network(), noise_input=noise_input, threads=1)
    rng = np.random.default_rng(3)
    cond, uncond = rng.standard_normal((2, 3, 5, 4)).astype(np.float32)
    x = rng.standard_normal((3, 4, 3, 2)).astype(np.float32) * SIGMAS[0]
    extra = {"cond": {"context": cond}, "uncond": {"context": uncond}, "guidance": 3.0}

    def model(x: Any, sigma: Any) -> Any:
        s = float(sigma[0])
        level = s if noise_input == "sigma" else float(TABLE.timestep_of(s))
        seen = x / (1 + s * s) ** 0.5
        u, c = (tanh_formula(seen, level, context) for context in (uncond, cond))
        return x - s * (u + 3.0 * (c - u))

    def noise() -> dict[str, Any]:
        if "noise_sampler" not in FUNCTIONS[name].options:
            return {}
        draws = np.random.default_rng(4)
        return {"noise_sampler": lambda a, b: draws.standard_normal(x.shape).astype(np.float32)}

    mine: list[Any] = []
    theirs: list[Any] = []
    expected = call(name, model, x, callback=theirs.append, **noise())
    if noise_input == "timestep":
        extra["table"] = TABLE
    got = call(name, denoiser, x, extra_args=extra, callback=mine.append, **noise())
    scale = np.abs(expected).max()
    assert np.abs(got - expected).max() < 1e-4 * scale
    assert len(mine) == len(theirs) == len(SIGMAS) - 1
    for a, b in zip(mine, theirs, strict=True):
        assert (a["i"], a["sigma"]) == (b["i"], b["sigma"])
        assert a["sigma_hat"] == pytest.approx(float(b["sigma_hat"]))
        for key in ("x", "denoised"):
            assert np.abs(a[key] - b[key]).max() < 1e-4 * max(scale, np.abs(b[key]).max())


def test_native_noise_of_our_own() -> None:
    denoiser = tx.Denoiser(tanh_network(has_condition=False), noise_input="sigma", threads=1)
    x = np.ones((2, 4, 3, 3), np.float32) * SIGMAS[0]
    runs = [
        call("sample_euler_ancestral", denoiser, x, extra_args={"noise": tx.Noise.philox(seed)})
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert np.abs(runs[0] - runs[2]).max() > 0.01


def test_noise_stands_between_the_levels_of_its_step() -> None:
    asked: list[tuple[float, float]] = []

    def sampler(start: Any, end: Any) -> Any:
        asked.append((float(start), float(end)))
        return np.zeros(SHAPE, np.float32)

    call("sample_euler_ancestral", constant, initial_noise(), noise_sampler=sampler)
    levels = SIGMAS.tolist()
    np.testing.assert_allclose(asked, list(pairwise(levels[:-1])))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_dtypes_stay(dtype: str) -> None:
    x = initial_noise().astype(dtype) * SIGMAS.astype(dtype)[0]

    def model(x: Any, sigma: Any) -> Any:
        assert x.dtype == sigma.dtype == dtype
        return numpy_model(x, sigma)

    got = call("sample_dpmpp_2m", model, x)
    reference = call("sample_dpmpp_2m", numpy_model, x.astype(np.float64))
    assert got.dtype == dtype
    # float16 has 11 bits, float32 24, over six steps; float64 is the reference itself.
    assert (
        np.abs(got - reference).max()
        < {"float16": 2e-2, "float32": 1e-5, "float64": 1e-9}[dtype] * np.abs(reference).max()
    )


def test_the_start_is_not_changed() -> None:
    x = initial_noise()
    before = x.copy()
    call("sample_heun", numpy_model, x)
    np.testing.assert_array_equal(x, before)


def test_options_change_the_result() -> None:
    x = initial_noise() * SIGMAS[0]
    plain = call("sample_euler", numpy_model, x)
    assert np.abs(call("sample_euler", numpy_model, x, s_churn=3.0) - plain).max() > 1e-4


def test_signatures_are_the_published_ones() -> None:
    def options(name: str) -> list[str]:
        return list(inspect.signature(getattr(k_diffusion, name)).parameters)

    head = ["model", "x", "sigmas", "extra_args", "callback", "disable"]
    assert options("sample_euler") == [*head, "s_churn", "s_tmin", "s_tmax", "s_noise"]
    assert options("sample_euler_ancestral") == [*head, "eta", "s_noise", "noise_sampler"]
    assert options("sample_dpmpp_2m") == head


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"sigmas": [1.0, 2.0, 0.0]}, "high to low"),
        ({"sigmas": [1.0]}, "two or more"),
        ({"sigmas": [np.inf, 1.0]}, "finite"),
        ({"sigmas": 3.0}, "sigmas"),
        ({"sigmas": [1.0, 0.0, 0.0]}, "> 0"),
        ({"x": np.ones(SHAPE, np.int64)}, "floating-point"),
        ({"x": np.float32(1)}, "B"),
        ({"x": [1.0, 2.0]}, "floating-point"),
        ({"model": 3}, "model"),
        ({"model": lambda x, sigma: x[:1]}, "shape"),
        ({"model": lambda x, sigma: None}, "shape"),
        ({"s_churm": 1.0}, "s_churm"),
    ],
)
def test_calls_that_do_not_fit(changed: dict[str, Any], words: str) -> None:
    values = {"model": constant, "x": initial_noise(), "sigmas": SIGMAS, **changed}
    with pytest.raises(errors.InvalidRequestError, match=words):
        k_diffusion.sample_euler(**values, disable=True)


def test_a_noise_sampler_that_does_not_fit() -> None:
    with pytest.raises(errors.InvalidRequestError, match="noise_sampler"):
        call("sample_euler_ancestral", constant, initial_noise(), noise_sampler=lambda a, b: 1.0)


def test_an_exception_of_the_callback_ends_the_run() -> None:
    denoiser = tx.Denoiser(tanh_network(has_condition=False), noise_input="sigma", threads=1)

    def broken(entry: dict[str, Any]) -> None:
        raise KeyError(entry["i"])

    x = np.ones((1, 4, 2, 2), np.float32)
    for model in (constant, denoiser):
        with pytest.raises(KeyError, match="0"):
            call("sample_euler", model, x, callback=broken)
    # What a callback returns is nobody's concern, as in k-diffusion.
    for model in (constant, denoiser):
        plain = call("sample_euler", model, x)
        got = call("sample_euler", model, x, callback=lambda entry: np.zeros(3))
        np.testing.assert_array_equal(got, plain)


def test_native_calls_that_do_not_fit() -> None:
    denoiser = tx.Denoiser(tanh_network(has_condition=False), threads=1)
    x = np.ones((1, 4, 2, 2), np.float32)
    with pytest.raises(errors.InvalidRequestError, match="table"):
        call("sample_euler", denoiser, x)
    with pytest.raises(errors.InvalidRequestError, match="cond_scale"):
        call("sample_euler", denoiser, x, extra_args={"table": TABLE, "cond_scale": 7})


def test_a_bar_shows_the_steps(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    denoiser = tx.Denoiser(tanh_network(has_condition=False), noise_input="sigma", threads=1)
    x = np.ones((1, 4, 2, 2), np.float32)
    for model in (constant, denoiser):
        k_diffusion.sample_euler(model, x, SIGMAS, disable=False)
        assert "6/6" in capsys.readouterr().err
        k_diffusion.sample_euler(model, x, SIGMAS, disable=True)
        assert capsys.readouterr() == ("", "")


def test_without_tqdm_there_is_no_bar(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    k_diffusion.sample_euler(constant, initial_noise(), SIGMAS, disable=False)
    assert capsys.readouterr() == ("", "")
