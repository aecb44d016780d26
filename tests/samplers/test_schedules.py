"""Schedules and training tables against the formulas they are named after."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from textopia_fast.errors import InvalidRequestError
from textopia_fast.samplers import Schedule, TrainingTable, schedules
from textopia_fast.schedules.beta import inverse_beta

SD = TrainingTable(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def test_stable_diffusions_table() -> None:
    # The two ends are widely published for this model family.
    assert SD.sigmas[0] == pytest.approx(0.0292, abs=5e-5)
    assert SD.sigmas[-1] == pytest.approx(14.6146, abs=5e-5)
    betas = [(0.00085**0.5 + i / 999 * (0.012**0.5 - 0.00085**0.5)) ** 2 for i in range(1000)]
    np.testing.assert_allclose(SD.alpha_bars, np.cumprod([1 - b for b in betas]), rtol=1e-13)
    np.testing.assert_allclose(SD.sigmas**2, 1 / SD.alpha_bars - 1, rtol=1e-12)


def test_other_tables() -> None:
    linear = TrainingTable(steps=10, beta_start=0.1, beta_end=0.2)
    np.testing.assert_allclose(linear.alpha_bars, np.cumprod(1 - np.linspace(0.1, 0.2, 10)))
    trained = TrainingTable(trained_betas=(0.1, 0.2, 0.3))
    assert trained.steps == 3
    np.testing.assert_allclose(trained.alpha_bars, [0.9, 0.72, 0.504])
    cosine = TrainingTable(steps=100, beta_schedule="squaredcos_cap_v2")
    f = np.cos((np.arange(101) / 100 + 0.008) / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(cosine.alpha_bars[:-1], (f / f[0])[1:-1], rtol=1e-10)
    assert cosine.alpha_bars[-1] == pytest.approx(cosine.alpha_bars[-2] * 0.001)


def test_zero_terminal_snr() -> None:
    table = TrainingTable(**{**vars_of(SD), "terminal_alpha_bar": 2.0**-24})
    roots = np.sqrt(SD.alpha_bars)
    expected = roots[0] / (roots[0] - roots[-1]) * (roots - roots[-1])
    np.testing.assert_allclose(np.sqrt(table.alpha_bars[:-1]), expected[:-1], rtol=1e-12)
    assert table.alpha_bars[0] == pytest.approx(SD.alpha_bars[0])
    assert table.sigmas[-1] == pytest.approx(4096.0, rel=1e-6)


def vars_of(table: TrainingTable) -> dict[str, Any]:
    return {name: getattr(table, name) for name in table.__dataclass_fields__}


def test_tables_are_small_values() -> None:
    assert pickle.loads(pickle.dumps(SD)) == SD
    assert hash(SD) == hash(TrainingTable(**vars_of(SD)))
    with pytest.raises(ValueError, match="read-only"):
        SD.sigmas[0] = 1.0


def test_timestep_and_sigma_are_inverse_at_the_table() -> None:
    at = [0, 1, 500, 998, 999]
    np.testing.assert_allclose(SD.timestep_of(SD.sigmas[at]), at, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(SD.sigma_of(at), SD.sigmas[at])
    assert SD.timestep_of(1e-9) == 0.0
    assert SD.timestep_of(1e9) == 999.0
    middle = SD.timestep_of(np.sqrt(SD.sigmas[10] * SD.sigmas[11]))
    assert middle == pytest.approx(10.5)


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        ("leading", [751, 501, 251, 1]),
        ("linspace", [999, 666, 333, 0]),
        ("trailing", [999, 749, 499, 249]),
    ],
)
def test_discrete(spacing: str, expected: list[int]) -> None:
    schedule = schedules.discrete(4, SD, spacing=spacing, steps_offset=1)
    assert schedule.timesteps == tuple(map(float, expected))
    np.testing.assert_array_equal(schedule.sigmas[:-1], SD.sigmas[expected])
    assert schedule.sigmas[-1] == 0.0
    top = schedule.sigmas[0]
    scale = np.sqrt(top**2 + 1) if spacing == "leading" else top
    assert schedule.initial_scale == pytest.approx(scale)


@pytest.mark.parametrize("spacing", schedules.SPACINGS)
@pytest.mark.parametrize("n", [1, 2, 3, 7, 30, 333, 999, 1000])
def test_every_number_of_steps(spacing: str, n: int) -> None:
    schedule = schedules.discrete(n, SD, spacing=spacing, final="sigma_min")
    assert schedule.step_count == n
    assert schedule.sigmas[-1] == SD.sigmas[0]
    assert all(a >= b for a, b in zip(schedule.sigmas, schedule.sigmas[1:], strict=False))
    for sigma, timestep in zip(schedule.sigmas, schedule.timesteps, strict=False):
        assert schedule.noise_level(sigma) == timestep


def test_karras() -> None:
    sigmas = schedules.karras_sigmas(5, 0.1, 10.0)
    i = np.arange(5)
    expected = (10 ** (1 / 7) + i / 4 * (0.1 ** (1 / 7) - 10 ** (1 / 7))) ** 7
    np.testing.assert_allclose(sigmas[:-1], expected, rtol=1e-12)
    assert sigmas[-1] == 0.0
    assert schedules.karras_sigmas(1, 0.1, 10.0) == pytest.approx((10.0, 0.0))
    schedule = schedules.karras(5, 0.1, 10.0, table=SD)
    assert schedule.timesteps[0] == pytest.approx(SD.timestep_of(10.0))
    assert schedule.initial_scale == pytest.approx(10.0)


def test_exponential() -> None:
    sigmas = np.array(schedules.exponential_sigmas(4, 0.1, 100.0))
    np.testing.assert_allclose(sigmas, [100.0, 10.0, 1.0, 0.1, 0.0], rtol=1e-12)
    even = schedules.polyexponential_sigmas(4, 0.1, 100.0, 1.0)
    np.testing.assert_allclose(even, sigmas)
    assert schedules.exponential(4, 0.1, 100.0).noise_level(10.0) == pytest.approx(10.0)


def test_vp() -> None:
    sigmas = np.array(schedules.vp_sigmas(3))
    t = np.array([1.0, 0.5005, 0.001])
    np.testing.assert_allclose(sigmas[:-1] ** 2, np.exp(19.9 * t**2 / 2 + 0.1 * t) - 1, rtol=1e-9)


@pytest.mark.parametrize(
    ("noise_input", "scale", "expected"),
    [("sigma", 1.0, 3.0), ("log_sigma", 0.25, np.log(3.0) / 4), ("log_sigma", 1.0, np.log(3.0))],
)
def test_noise_inputs(noise_input: str, scale: float, expected: float) -> None:
    schedule = schedules.explicit([3.0, 1.0, 0.0], noise_input=noise_input, noise_scale=scale)
    assert schedule.timesteps[0] == pytest.approx(expected)
    assert schedule.noise_level(3.0) == pytest.approx(expected)
    between = schedule.noise_level(2.0)
    assert min(schedule.timesteps) < between < max(schedule.timesteps)


def test_own_sigmas_have_their_own_timesteps() -> None:
    schedule = schedules.explicit([3.0, 1.0, 0.0], [17.0, 4.0], table=SD)
    assert schedule.noise_level(3.0) == 17.0
    assert schedule.noise_level(2.0) == pytest.approx(SD.timestep_of(2.0))


def test_tail() -> None:
    schedule = Schedule((4.0, 2.0, 1.0, 0.0), (3.0, 2.0, 1.0), 4.0, table=SD, targets=(2.0, 1.0, 0))
    tail = schedule.tail(1)
    assert tail.sigmas == (2.0, 1.0, 0.0)
    assert tail.timesteps == (2.0, 1.0)
    assert tail.targets == (1.0, 0.0)
    assert schedule.tail(0) == schedule
    for start in (-1, 3):
        with pytest.raises(InvalidRequestError, match=r"allowed are integers 0\.\.2"):
            schedule.tail(start)


def test_schedules_are_values() -> None:
    schedule = schedules.karras(5, 0.1, 10.0, table=SD)
    schedule.noise_level(0.5)
    again = pickle.loads(pickle.dumps(schedule))
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert again.noise_level(schedule.sigmas[0]) == schedule.timesteps[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: schedules.explicit([1.0]), "at least two"),
        (lambda: schedules.explicit([]), "at least two"),
        (lambda: schedules.explicit([0.0, 0.0]), "all > 0"),
        (lambda: schedules.explicit([1.0, -1.0]), "all > 0"),
        (lambda: schedules.explicit([float("inf"), 0.0]), "finite numbers"),
        (lambda: schedules.explicit([float("nan"), 0.0]), "finite numbers"),
        (lambda: schedules.explicit(["a", 0.0]), "finite numbers"),
        (lambda: schedules.explicit([2.0, 1.0, 0.0], [1.0]), "1 timesteps for 3 sigmas"),
        (lambda: schedules.explicit([1.0, 0.0], noise_input="time"), "noise_input: got 'time'"),
        (lambda: schedules.explicit([1.0, 0.0], noise_input="timestep"), "wants timesteps"),
        (lambda: schedules.explicit([1.0, 0.0], initial_scale=0.0), "initial_scale: got 0.0"),
        (lambda: schedules.explicit([1.0, 0.0], [5.0]).noise_level(0.5), "wants timesteps"),
        (lambda: schedules.karras(0, 0.1, 1.0), "n: got 0"),
        (lambda: schedules.karras(True, 0.1, 1.0), "n: got True"),
        (lambda: schedules.karras(3, 1.0, 0.1), "sigma_min <= sigma_max"),
        (lambda: schedules.exponential(3, 0.0, 0.1), "0 < sigma_min"),
        (lambda: schedules.discrete(0, SD), r"allowed are integers 1\.\.1000"),
        (lambda: schedules.discrete(1001, SD), r"1001, allowed are integers 1\.\.1000"),
        (lambda: schedules.discrete(2.5, SD), "2.5, allowed"),
        (lambda: schedules.discrete(3, SD, spacing="even"), "'even', allowed are leading"),
        (lambda: schedules.discrete(3, SD, final="one"), "'one', allowed are zero"),
        (lambda: TrainingTable(steps=0), "steps: got 0, allowed are integers 1"),
        (lambda: TrainingTable(beta_schedule="cosine"), "'cosine', allowed are linear"),
        (lambda: TrainingTable(beta_end=1.5), "between 0 and 1"),
        (lambda: TrainingTable(trained_betas=(0.1, float("nan"))), "between 0 and 1"),
        (lambda: TrainingTable(trained_betas=(0.5,), terminal_alpha_bar=0.1).sigmas, "at least 2"),
        (lambda: TrainingTable(steps=5000, beta_start=0.9, beta_end=0.99).sigmas, "multiplies to"),
    ],
)
def test_refuses(make: Any, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        make()


def test_beta_quantiles() -> None:
    # scipy.stats.beta.ppf(1 - numpy.linspace(0, 1, 5), 0.6, 0.6), SciPy 1.17
    expected = [1.0, 0.824319621347305, 0.5000000000000001, 0.17568037865269498, 0.0]
    sigmas = schedules.beta_sigmas(5, 1.0, 2.0)
    np.testing.assert_allclose(np.array(sigmas[:-1]) - 1.0, expected, rtol=1e-12, atol=1e-15)
    assert sigmas[-1] == 0.0
    assert schedules.beta_sigmas(1, 0.1, 3.0) == (3.0, 0.0)
    # the median of a skewed one: I_x(2, 5) = 1 - (1-x)^5*(1+5x)
    x = inverse_beta(0.5, 2.0, 5.0)
    assert 1 - (1 - x) ** 5 * (1 + 5 * x) == pytest.approx(0.5, abs=1e-14)


def test_levels_of_the_table_are_told_as_whole_timesteps() -> None:
    schedule = schedules.discrete(3, SD)
    told = [schedule.noise_level(float(sigma)) for sigma in SD.sigmas]
    assert told == list(range(1000))
    assert schedule.noise_level(float(SD.sigmas[5] + SD.sigmas[6]) / 2) == pytest.approx(
        5.5, abs=0.1
    )
