"""sample_dpm_adaptive: recorded and live runs of the original, torch, the native network runs."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import textopia_fast as tx
from tests.golden import make_dpm_adaptive
from tests.golden.make_dpm_adaptive import CASES, COUNTS, SIGMA_MAX, SIGMA_MIN
from tests.golden.sampler_cases import Draws, initial_noise
from tests.interop.test_k_diffusion import TABLE, numpy_model
from tests.support.networks import tanh_formula, tanh_network
from textopia_fast.errors import InvalidRequestError, NumericalError
from textopia_fast.interop.k_diffusion import sample_dpm_adaptive

GOLDEN = Path(make_dpm_adaptive.__file__).with_name("dpm_adaptive.npz")
# theirs keeps sigma, t and the error in float32
TOLERANCE = 1e-4


def run(model: Any = numpy_model, x: Any = None, **options: Any) -> Any:
    draws = Draws()
    options.setdefault("noise_sampler", lambda start, end: draws())
    x = initial_noise() * np.float32(SIGMA_MAX) if x is None else x
    return sample_dpm_adaptive(model, x, SIGMA_MIN, SIGMA_MAX, disable=True, **options)


@pytest.mark.parametrize("name", CASES)
def test_recorded_runs_of_the_original(name: str) -> None:
    shown: list[dict[str, Any]] = []
    x, info = run(callback=shown.append, return_info=True, **CASES[name])
    with np.load(GOLDEN) as golden:
        expected = golden[f"{name}/x"]
        assert [info[count] for count in COUNTS] == golden[f"{name}/counts"].tolist()
        np.testing.assert_allclose([e["t"] for e in shown], golden[f"{name}/t"], atol=1e-3)
        np.testing.assert_allclose([e["error"] for e in shown], golden[f"{name}/error"], rtol=1e-2)
    assert np.abs(x - expected).max() < TOLERANCE * np.abs(expected).max()
    assert x.dtype == np.float32


def test_the_callback_and_the_counts() -> None:
    shown: list[dict[str, Any]] = []
    x, info = run(callback=shown.append, return_info=True, h_init=3.0)
    assert info["n_reject"] > 0
    assert info["steps"] == info["n_accept"] + info["n_reject"] == len(shown)
    assert info["nfe"] == 3 * info["steps"]
    assert [e["i"] for e in shown] == list(range(info["steps"]))
    state = ("sigma", "sigma_hat", "x", "i", "t", "t_up", "denoised", "error", "h")
    assert {*shown[0]} == {*state, *COUNTS}
    last = shown[-1]
    np.testing.assert_array_equal(last["x"], x)
    assert float(last["sigma"]) == pytest.approx(SIGMA_MIN)
    assert isinstance(run(), np.ndarray)


def test_torch_and_the_original_live() -> None:
    torch = pytest.importorskip("torch")
    if importlib.util.find_spec("k_diffusion") is None:
        pytest.skip("k_diffusion is not installed")
    from tests.golden.make_sampler_goldens import load_sampling

    sampling = load_sampling(None)
    start = torch.from_numpy(initial_noise())

    def model(x: Any, sigma: Any) -> Any:
        return torch.from_numpy(numpy_model(x.numpy(), sigma.numpy()))

    for low, high in ((SIGMA_MIN, SIGMA_MAX), (SIGMA_MAX, SIGMA_MIN)):  # and inversion
        theirs, counts = sampling.sample_dpm_adaptive(
            model, start * high, low, high, disable=True, return_info=True
        )
        mine, info = sample_dpm_adaptive(
            model, start * high, low, high, disable=True, return_info=True
        )
        assert info == counts
        assert float((mine - theirs).abs().max()) < TOLERANCE * float(theirs.abs().max())


def test_inversion_with_a_denoiser() -> None:
    denoiser = tx.Denoiser(tanh_network(has_condition=False), noise_input="sigma", threads=1)
    x = np.random.default_rng(6).standard_normal((2, 4, 3, 2)).astype(np.float32)

    def model(x: Any, sigma: Any) -> Any:
        s = float(sigma[0])
        return x - np.float32(s) * tanh_formula(x / np.float32((1 + s * s) ** 0.5), s)

    got, expected = (
        sample_dpm_adaptive(m, x, SIGMA_MAX, SIGMA_MIN, disable=True) for m in (denoiser, model)
    )
    assert np.abs(got - expected).max() < TOLERANCE * np.abs(expected).max()


def test_torch_equals_numpy() -> None:
    torch = pytest.importorskip("torch")

    def model(x: Any, sigma: Any) -> Any:
        return torch.from_numpy(numpy_model(x.numpy(), sigma.numpy()))

    start = torch.from_numpy(initial_noise() * np.float32(SIGMA_MAX))
    draws = Draws()
    got = run(model, start, eta=0.7, noise_sampler=lambda a, b: torch.from_numpy(draws()))
    assert got.dtype == torch.float32
    expected = run(eta=0.7)
    assert np.abs(got.numpy() - expected).max() < 1e-5 * np.abs(expected).max()
    half = run(lambda x, sigma: x * 0, start.half())
    assert half.dtype == torch.float16


def test_the_signature_is_that_of_k_diffusion() -> None:
    names = (
        "model x sigma_min sigma_max extra_args callback disable order rtol atol h_init pcoeff "
        "icoeff dcoeff accept_safety eta s_noise noise_sampler return_info"
    )
    assert [*inspect.signature(sample_dpm_adaptive).parameters] == names.split()


@pytest.mark.parametrize("noise_input", ["sigma", "timestep"])
def test_native_equals_callable(noise_input: str) -> None:
    """The same network as an ONNX graph and in NumPy, guidance and noise included."""
    denoiser = tx.Denoiser(tanh_network(), noise_input=noise_input, threads=1)
    rng = np.random.default_rng(3)
    cond, uncond = rng.standard_normal((2, 3, 5, 4)).astype(np.float32)
    x = rng.standard_normal((3, 4, 3, 2)).astype(np.float32) * np.float32(SIGMA_MAX)
    extra: dict[str, Any] = {"cond": {"context": cond}, "uncond": {"context": uncond}}
    extra |= {"guidance": 3.0, **({"table": TABLE} if noise_input == "timestep" else {})}

    def model(x: Any, sigma: Any) -> Any:
        s = float(sigma[0])
        level = s if noise_input == "sigma" else float(TABLE.timestep_of(s))
        seen = x / np.float32((1 + s * s) ** 0.5)
        u, c = (tanh_formula(seen, level, context) for context in (uncond, cond))
        return x - np.float32(s) * (u + 3 * (c - u))

    def noise() -> Any:
        draws = np.random.default_rng(4)
        return lambda a, b: draws.standard_normal(x.shape).astype(np.float32)

    shown: list[dict[str, Any]] = []
    expected, counts = run(model, x, eta=0.5, noise_sampler=noise(), return_info=True)
    got, info = run(
        denoiser,
        x,
        extra_args=extra,
        eta=0.5,
        noise_sampler=noise(),
        return_info=True,
        callback=shown.append,
    )
    assert info == counts
    assert len(shown) == info["steps"]
    assert np.abs(got - expected).max() < TOLERANCE * np.abs(expected).max()
    own = [
        run(denoiser, x, extra_args={**extra, "noise": tx.Noise.philox(seed)}, eta=0.5)
        for seed in (1, 1, 2)
    ]
    np.testing.assert_array_equal(own[0], own[1])
    assert np.abs(own[0] - own[2]).max() > 1e-3


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"order": 4}, "order"),
        ({"rtol": -1.0}, "rtol"),
        ({"atol": "small"}, "atol"),
        ({"h_init": 0.0}, "h_init"),
        ({"pcoeff": float("nan")}, "pcoeff"),
        ({"rtol": 0.0, "atol": 0.0}, "rtol"),
        ({"model": 3}, "model"),
        ({"model": lambda x, sigma: x[:1]}, "model"),
        ({"x": np.ones((1, 4, 2, 2), int)}, "x"),
        ({"noise_sampler": lambda a, b: np.ones(3), "eta": 1.0}, "noise_sampler"),
    ],
)
def test_bad_arguments(options: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        run(**options)
    assert caught.value.details["param"] == param


@pytest.mark.parametrize("levels", [(0.0, 1.0), (0.1, 0.0), (-1.0, 2.0), ("a", 1.0)])
def test_bad_levels(levels: tuple[Any, Any]) -> None:
    with pytest.raises(InvalidRequestError, match="sigma_m"):
        sample_dpm_adaptive(numpy_model, initial_noise(), *levels, disable=True)


def test_noise_only_on_the_way_down() -> None:
    with pytest.raises(InvalidRequestError, match="eta"):
        sample_dpm_adaptive(numpy_model, initial_noise(), 10.0, 0.1, disable=True, eta=1.0)


def test_a_tolerance_out_of_reach_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textopia_fast.samplers.adaptive.MOST_STEPS", 100)
    rng = np.random.default_rng(1)

    def noisy(x: Any, sigma: Any) -> Any:
        return rng.standard_normal(x.shape).astype(np.float32)

    x = np.ones((1, 100), np.float32)
    with pytest.raises(NumericalError, match="dpm_adaptive was not at the last noise level"):
        run(noisy, x, rtol=1e-9, atol=1e-9)  # steps become too small
    with pytest.raises(NumericalError, match="after 100 steps"):
        run(x=x, accept_safety=3.0, model=lambda x, sigma: 0 * x)  # more than the controller gives
