"""What a trace refuses, and that it ends: errors that name the expression and the line."""

from __future__ import annotations

import itertools
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from textopia_fast.errors import InvalidRequestError
from textopia_fast.samplers import (
    SAMPLERS,
    schedules,
    seen_sigmas,
    stationary,
    trace,
)
from textopia_fast.tracing import recording
from textopia_fast.tracing.trace import Tracer

LEVELS = schedules.explicit([4.0, 2.0, 1.0, 0.0])


REFUSED: dict[str, tuple[Callable[[Any, Any], Any], str]] = {
    "product": (
        lambda m, x: x * (x + x),
        r"\(\+1\*x0\) \* \(\+2\*x0\) is a product of two latents",
    ),
    "quotient": (lambda m, x: x / x, "quotient of two latents"),
    "reciprocal": (lambda m, x: 1.0 / x, "not linear"),
    "constant": (lambda m, x: x + 1.0, r"\(\+1\*x0\) \+ 1.0 adds a constant"),
    "constant left": (lambda m, x: 1.0 - x, "adds a constant"),
    "array": (lambda m, x: x * np.ones(3), "needs a single number"),
    "array left": (lambda m, x: np.ones(3) * x, "needs a single number"),
    "text": (lambda m, x: x * "2", "needs a single number"),
    "nan": (lambda m, x: x * float("nan"), "not finite"),
    "overflow": (lambda m, x: x * 1e300 * 1e300, "not finite"),
    "by zero": (lambda m, x: x / 0, "division by zero"),
    "less": (lambda m, x: x < 1.0, "<"),
    "equal": (lambda m, x: x == x, "=="),
    "power": (lambda m, x: x**2, r"\*\*"),
    "numpy": (lambda m, x: np.sqrt(x), "numpy.sqrt"),
    "numpy function": (lambda m, x: np.mean(x), "numpy.mean"),
    "numpy array": (lambda m, x: np.asarray(x), "turned into an array"),
    "number": (lambda m, x: float(x), "turned into a number"),
    "condition": (lambda m, x: x if x else 2 * x, "as a condition"),
    "attribute": (lambda m, x: x.shape, r"attribute .shape"),
    "index": (lambda m, x: x[0], r"\[0\]"),
    "iteration": (lambda m, x: list(x), "iterated"),
    "length": (lambda m, x: len(x), "len"),
    "absolute": (lambda m, x: abs(x), "abs"),
    "result": (lambda m, x: None, "returned NoneType"),
    "denoise a number": (lambda m, x: m.denoise(1.0, 1.0), "m.denoise: float"),
    "sigma 0": (lambda m, x: m.denoise(x, 0.0), "sigma: got 0.0"),
    "sigma nan": (lambda m, x: m.denoise(x, float("nan")), "sigma: got nan"),
    "clamp": (lambda m, x: m.clamp(x, 1.0, 1.0), "low < high"),
    "snr": (lambda m, x: m.langevin_step(x, m.score(x, 1.0), snr=0.0), "snr: got 0.0"),
    "norm": (lambda m, x: m.langevin_step(x, m.score(x, 1.0), snr=1.0, norm="all"), "'all'"),
    "own score": (lambda m, x: m.langevin_step(x, x, snr=1.0), "the same latent"),
    "step": (lambda m, x: m.step(3.0), "m.step: float"),
    "threshold": (lambda m, x: m.threshold(x, 2.0, 1.0), "quantile 0..1"),
    "threshold a number": (lambda m, x: m.threshold(1.0, 0.5, 1.0), "m.threshold: float"),
    "halves of a number": (lambda m, x: m.denoise_halves(1.0, 1.0), "m.denoise: float"),
    "round": (lambda m, x: round(x), "round"),
    "and": (lambda m, x: x & x, "&"),
    "shift": (lambda m, x: x << 1, "<<"),
    "divmod": (lambda m, x: divmod(x, 2.0), "divmod"),
    "invert": (lambda m, x: ~x, "~"),
    "exp": (lambda m, x: np.exp(x), r"numpy.exp is applied to \(\+1\*x0\)"),
    "math": (lambda m, x: math.exp(x), "turned into a number"),
    "maximum": (lambda m, x: max(x, 2 * x), ">"),
    "clip": (lambda m, x: x.clip(-1, 1), r"attribute .clip of \(\+1\*x0\)"),
    "set": (lambda m, x: x.__setitem__(0, 1.0), r"\[0\] is set"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str) -> None:
    sampler, message = REFUSED[name]
    with pytest.raises(InvalidRequestError, match=message) as caught:
        trace(lambda m, x, sigmas: sampler(m, x), LEVELS)
    assert "param" in caught.value.details


def test_errors_name_the_line_of_the_sampler() -> None:
    def wobbly(m: Any, x: Any, sigmas: Any) -> Any:
        x0 = m.denoise(x, sigmas[0])
        return helper(x0)

    def helper(x0: Any) -> Any:
        return np.exp(x0) + 1.0

    line = helper.__code__.co_firstlineno + 1
    with pytest.raises(InvalidRequestError) as caught:
        trace(wobbly, LEVELS)
    assert caught.value.message == (
        "trace: numpy.exp is applied to (+1*x0 -4*e0), which a program cannot hold; in helper, "
        f"line {line} of test_trace_refusals.py: `return np.exp(x0) + 1.0`."
    )
    assert caught.value.hint == (
        "Samplers may only add latents and multiply or divide them by numbers."
    )
    assert caught.value.details["line"] == line
    assert caught.value.details["file"] == __file__
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_errors_of_options_name_no_line_of_this_package() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        trace("dpmpp_2m", LEVELS, order=7)
    assert "line" not in caught.value.details


def test_a_line_of_the_caller_is_named_where_it_uses_a_sampler_of_this_package() -> None:
    def mine(m: Any, x: Any, sigmas: Any) -> Any:
        return SAMPLERS["euler"].function(m, x, [*sigmas, -1.0, 0.0])

    with pytest.raises(
        InvalidRequestError, match=r"line \d+ of test_trace_refusals.py: `return SAMPLERS"
    ):
        trace(mine, LEVELS)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch and NumPy's array protocol
def test_tensors_are_numbers_or_refused() -> None:
    torch = pytest.importorskip("torch")

    def scalars(m: Any, x: Any, sigmas: Any) -> Any:
        two = torch.tensor(2.0)
        return two * x + x * two + x / two + (torch.tensor(0.0) + x) - (torch.tensor(0.0) - x)

    assert trace(scalars, LEVELS).instructions[0].terms[0][1] == 6.5
    for use, name in (
        (lambda m, x: torch.exp(x), "torch.exp is applied to"),
        (lambda m, x: torch.randn_like(x), "torch.randn_like"),
        (lambda m, x: torch.ones(3) * x, "needs a single number"),
        (lambda m, x: torch.tensor(1.0) + x, "adds a constant"),
        (lambda m, x: torch.tensor(1.0) / x, "torch"),
        (lambda m, x: torch.stack([x, x]), "torch.stack"),
    ):
        with pytest.raises(InvalidRequestError, match=name):
            trace(lambda m, x, sigmas, use=use: use(m, x), LEVELS)


def forever_denoising(m: Any, x: Any, sigmas: Any) -> Any:
    while True:
        x = m.denoise(x, 1.0)


def forever_drawing(m: Any, x: Any, sigmas: Any) -> Any:
    for z in (m.noise() for _ in itertools.count()):
        x = x + z
    return x


def forever_stepping(m: Any, x: Any, sigmas: Any) -> Any:
    for _ in itertools.count():
        m.step(x)


def forever_shrinking(m: Any, x: Any, sigmas: Any) -> Any:
    while True:
        x = 0.5 * x


def forever_drawing_only(m: Any, x: Any, sigmas: Any) -> Any:
    for z in (m.noise() for _ in itertools.count()):
        del z


ENDLESS = [
    forever_denoising,
    forever_drawing,
    forever_stepping,
    forever_shrinking,
    forever_drawing_only,
]


@pytest.mark.parametrize("sampler", ENDLESS, ids=lambda sampler: sampler.__name__)
def test_a_loop_without_end_ends(sampler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # A hundredth of the limits: what ends there ends at the full ones, too.
    monkeypatch.setattr(recording, "MAX_INSTRUCTIONS", recording.MAX_INSTRUCTIONS // 100)
    monkeypatch.setattr(recording, "MAX_WEIGHTS", recording.MAX_WEIGHTS // 100)
    with pytest.raises(
        InvalidRequestError, match=r"more than [\d,]+ .*Does its loop end"
    ) as caught:
        trace(sampler, LEVELS)
    assert caught.value.details["param"] == "sampler"
    assert "of test_trace_refusals.py" in str(caught.value)


def test_levels_without_end_end() -> None:
    with pytest.raises(InvalidRequestError, match=r"sigmas: got count\(\d+\), .*at most 2,000,000"):
        trace("euler", itertools.count(1))


def test_the_noise_level_of_each_network_run() -> None:
    schedule = schedules.explicit([4.0, 2.0, 0.0], [9.0, 5.0])
    assert seen_sigmas("heun", schedule, {}) == (4.0, 2.0, 2.0)
    assert seen_sigmas("dpmpp_2m", schedule, {"order": 1}) == (4.0, 2.0)


def test_the_largest_langevin_program_fits() -> None:
    assert 3 * stationary.MAX_UPDATES <= recording.MAX_INSTRUCTIONS
    # weights written per update, counted on a few
    few = recording.Recording()._weights_left
    tracer = Tracer(float, "score")
    SAMPLERS["langevin"].function(tracer, tracer.initial, [1.0] * 101)
    assert (few - tracer._weights_left) / 100 * stationary.MAX_UPDATES <= recording.MAX_WEIGHTS


def test_refuses_a_latent_of_another_trace() -> None:
    kept: list[Any] = []
    trace(lambda m, x, sigmas: kept.append(x) or x, LEVELS)
    for use in (lambda m, x: x + kept[0], lambda m, x: kept[0], lambda m, x: m.denoise(kept[0], 1)):
        with pytest.raises(InvalidRequestError):
            trace(lambda m, x, sigmas, use=use: use(m, x), LEVELS)


def test_numpy_scalars_are_numbers() -> None:
    def scalars(m: Any, x: Any, sigmas: Any) -> Any:
        two = np.float64(2.0)
        return two * x + x * np.float32(0.5) + x / np.int64(4) + (np.float64(0.0) + x)

    program = trace(scalars, LEVELS)
    assert program.instructions[0].terms[0][1] == 2.0 + 0.5 + 0.25 + 1.0


@pytest.mark.parametrize("option", ["s_chur", "targets", "m"])
def test_refuses_unknown_options(option: str) -> None:
    with pytest.raises(
        InvalidRequestError, match=f"euler: option '{option}' is not known.*s_churn"
    ):
        trace("euler", LEVELS, **{option: 1.0})


@pytest.mark.parametrize(
    ("sampler", "options"),
    [
        ("ddpm", {"variance": "learned"}),
        ("langevin", {"coefficients": "printed"}),
        ("langevin", {"eta": -1.0}),
        ("predictor_corrector", {"predictor": "euler"}),
        ("predictor_corrector", {"corrector": "mala"}),
        ("predictor_corrector", {"norm": "image"}),
    ],
)
def test_refuses_option_values(sampler: str, options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(InvalidRequestError, match=name):
        trace(sampler, LEVELS, **options)


def test_refuses_an_unknown_prediction() -> None:
    with pytest.raises(InvalidRequestError, match="'eps', allowed are epsilon"):
        trace("euler", LEVELS, "eps")
