"""What the sampler tests share: a network, draws, a program run next to its function."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from tests.golden.sampler_cases import network
from textopia_fast.samplers import Program, Schedule, trace
from textopia_fast.tracing.reference import ArrayModel, run
from textopia_fast.tracing.registry import resolve

SHAPE = (3, 2, 3, 5)


def numpy_network(x: np.ndarray, noise_level: float) -> np.ndarray:
    """The network of the golden cases, in the dtype of x."""
    return network(x, noise_level, np.tanh, np.cos)


def start(schedule: Schedule) -> np.ndarray:
    """float64 SHAPE: the scaled initial latent."""
    return np.random.default_rng(3).standard_normal(SHAPE) * schedule.initial_scale


def draws() -> Callable[[], np.ndarray]:
    """A fresh source of the same unit normal arrays."""
    rng = np.random.default_rng(5)
    return lambda: rng.standard_normal(SHAPE)


def run_function(
    sampler: Any, schedule: Schedule, prediction: str = "epsilon", **options: Any
) -> tuple[np.ndarray, list[tuple[int, Any, Any]]]:
    """The sampler function on arrays: its result and what it showed at each step."""
    shown: list[tuple[int, Any, Any]] = []
    m = ArrayModel(
        numpy_network, draws(), schedule.noise_level, prediction, lambda *step: shown.append(step)
    )
    _, function = resolve(sampler)
    parameters = inspect.signature(function).parameters
    if schedule.targets is not None:
        options = {**options, "targets": schedule.targets}
    if "timesteps" in parameters:
        options = {**options, "timesteps": schedule.timesteps}
    return function(m, start(schedule), schedule.sigmas, **options), shown


def run_program(program: Program, schedule: Schedule) -> tuple[np.ndarray, list]:
    """The program on the same arrays."""
    shown: list[tuple[int, Any, Any]] = []
    result = run(
        program, numpy_network, start(schedule), draws(), on_step=lambda *step: shown.append(step)
    )
    return result, shown


def assert_same_run(
    sampler: Any, schedule: Schedule, prediction: str = "epsilon", **options: Any
) -> Program:
    """Executing the program is running the function: to 1e-13 of the largest latent of the run."""
    program = trace(sampler, schedule, prediction, **options)
    expected, expected_steps = run_function(sampler, schedule, prediction, **options)
    got, steps = run_program(program, schedule)
    scale = max(np.abs(start(schedule)).max(), *(np.abs(x).max() for _, x, _ in expected_steps), 1)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-13 * scale)
    assert len(steps) == len(expected_steps)
    for (index, x, x0), (index_expected, x_expected, x0_expected) in zip(
        steps, expected_steps, strict=True
    ):
        assert index == index_expected
        np.testing.assert_allclose(x, x_expected, rtol=0, atol=1e-13 * scale)
        if x0_expected is not None:
            np.testing.assert_allclose(x0, x0_expected, rtol=0, atol=2e-13 * scale)
    return program
