"""Schedules by name against the rules of the user interfaces that they come from, written out."""

from __future__ import annotations

from math import exp, log

import numpy as np
import pytest

from textopia_fast.errors import InvalidRequestError
from textopia_fast.samplers import TrainingTable, schedules
from textopia_fast.schedules.by_name import NAMED, named_sigmas

SD = TrainingTable(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
STEPS = (1, 2, 3, 7, 20, 50)


def sigma_at(t: float) -> float:
    """Between timesteps linear in log sigma."""
    low = min(int(t), 998)
    part = t - low
    return exp((1 - part) * log(SD.sigmas[low]) + part * log(SD.sigmas[low + 1]))


@pytest.mark.parametrize("n", STEPS)
def test_even_in_time(n: int) -> None:
    normal = [sigma_at(999 - 999 * i / (n - 1)) if n > 1 else SD.sigmas[-1] for i in range(n)]
    np.testing.assert_allclose(named_sigmas("normal", n, SD), [*normal, 0.0], rtol=1e-12)
    uniform = [sigma_at(999 - 999 * i / n) for i in range(n)]
    np.testing.assert_allclose(named_sigmas("sgm_uniform", n, SD), [*uniform, 0.0], rtol=1e-12)


@pytest.mark.parametrize("n", STEPS)
def test_levels_of_the_table(n: int) -> None:
    rising = list(SD.sigmas)
    simple = [rising[-(1 + int(i * (1000 / n)))] for i in range(n)]
    assert named_sigmas("simple", n, SD) == [*simple, 0.0]
    strided = [0.0]
    at = 1
    while at < 1000:
        strided.append(rising[at])
        at += 1000 // n
    assert named_sigmas("ddim_uniform", n, SD) == strided[::-1]


def test_beta_on_whole_timesteps() -> None:
    # numpy.rint(scipy.stats.beta.ppf(1 - i/8, 0.6, 0.6) * 999) for i in 0..7, SciPy 1.17
    times = [999, 942, 823, 670, 500, 329, 176, 57]
    assert named_sigmas("beta_timesteps", 8, SD) == [*(SD.sigmas[t] for t in times), 0.0]
    # many steps round to the same timesteps, which are taken once
    assert len(named_sigmas("beta_timesteps", 900, SD)) < 901


@pytest.mark.parametrize("n", STEPS)
def test_kl_optimal(n: int) -> None:
    share = np.arange(n) / max(n - 1, 1)
    expected = np.tan(share * np.arctan(SD.sigmas[0]) + (1 - share) * np.arctan(SD.sigmas[-1]))
    np.testing.assert_allclose(named_sigmas("kl_optimal", n, SD), [*expected, 0.0], rtol=1e-12)


@pytest.mark.parametrize("n", STEPS)
def test_linear_quadratic(n: int) -> None:
    half = n // 2
    done = [0.0]
    if half:
        gap = half - 0.025 * n
        square = gap / (half * (n - half) ** 2)
        straight = 0.025 / half - 2 * gap / (n - half) ** 2
        done = [0.025 * i / half for i in range(half)]
        done += [square * i * i + straight * i + square * half * half for i in range(half, n)]
    expected = [*((1 - d) * SD.sigmas[-1] for d in done), 0.0]
    np.testing.assert_allclose(named_sigmas("linear_quadratic", n, SD), expected, rtol=1e-12)


def test_align_your_steps() -> None:
    # As diffusers publishes them for ten steps.
    ten = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.0]
    np.testing.assert_allclose(named_sigmas("ays", 10, SD), ten, rtol=1e-12)
    xl = [14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.0]
    np.testing.assert_allclose(named_sigmas("ays_xl", 10, SD), xl, rtol=1e-12)
    # twenty: every other one is in the middle of its neighbours' logarithms
    twenty = named_sigmas("ays", 20, SD)
    np.testing.assert_allclose(twenty[:20:2], ten[:-1], rtol=1e-12)
    assert twenty[1] == pytest.approx((14.615 * 6.475) ** 0.5)


def test_gits() -> None:
    # As published for Stable Diffusion 1.5 with coefficient 1.20, from 100 steps of the teacher.
    four = [14.61464119, 2.36326075, 0.92192322, 0.36617002, 0.0]
    np.testing.assert_allclose(named_sigmas("gits", 4, SD), four, rtol=1e-4)
    ten = [14.61464119, 5.85520077, 2.84484982, 1.67050016, 1.08895338, 0.74807048, 0.50118381]
    ten += [0.32104823, 0.19894916, 0.09824532, 0.0]
    np.testing.assert_allclose(named_sigmas("gits", 10, SD), ten, rtol=1e-4)
    # forty: every other one of those of twenty, the rest between their logarithms
    twenty, forty = named_sigmas("gits", 20, SD), named_sigmas("gits", 40, SD)
    np.testing.assert_allclose(forty[:40:2], twenty[:-1], rtol=1e-12)
    assert forty[1] == pytest.approx((twenty[0] * twenty[1]) ** 0.5)
    for n in STEPS:
        assert np.all(np.diff(named_sigmas("gits", n, SD)) < 0)


def test_lu_lambdas() -> None:
    expected = np.geomspace(SD.sigmas[-1], SD.sigmas[0], 7)
    np.testing.assert_allclose(named_sigmas("lu_lambdas", 7, SD), [*expected, 0.0], rtol=1e-12)


@pytest.mark.parametrize("name", NAMED)
def test_schedules_by_name(name: str) -> None:
    schedule = schedules.named(name, 8, SD)
    assert schedule.sigmas == tuple(named_sigmas(name, 8, SD))
    assert schedule.timesteps[0] == pytest.approx(SD.timestep_of(schedule.sigmas[0]))
    for wrong in ({"name": "cosine"}, {"n": 0}, {"table": None}):
        with pytest.raises(InvalidRequestError):
            schedules.named(**{"name": name, "n": 8, "table": SD, **wrong})


def test_flows() -> None:
    schedule = schedules.flow(4, shift=3.0)
    even = np.linspace(1.0, 0.001, 4)
    times = 3 * even / (1 + 2 * even)
    np.testing.assert_allclose(schedule.timesteps, 1000 * times, rtol=1e-12)
    np.testing.assert_allclose(schedule.sigmas[1:4], times[1:] / (1 - times[1:]), rtol=1e-12)
    assert schedule.sigmas[-1] == 0.0
    ended = schedules.flow(5, shift_terminal=0.2).timesteps
    assert ended[-1] == pytest.approx(200.0)
    assert ended[0] == pytest.approx(1000.0)
    assert np.ptp(np.diff(ended)) < 1e-9
    for wrong in (
        {"n": 0},
        {"shift": 0.0},
        {"shift": float("nan")},
        {"shift_terminal": 1.0},
        {"n": 1, "shift_terminal": 0.1},
    ):
        with pytest.raises(InvalidRequestError):
            schedules.flow(**{"n": 4, **wrong})


def test_ends() -> None:
    for name in NAMED:
        levels = named_sigmas(name, 12, SD)
        assert levels[-1] == 0.0
        if name != "vp":
            assert levels[0] == pytest.approx(SD.sigmas[-1], rel=0.15)
