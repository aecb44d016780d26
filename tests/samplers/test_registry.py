"""The registry: names, near misses, and functions in the place of names."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from textopia_fast.errors import InvalidRequestError
from textopia_fast.samplers import SAMPLERS, STEP_BY_STEP, get, names, trace
from textopia_fast.schedules.levels import SPACINGS
from textopia_fast.tracing.registry import resolve


def test_names() -> None:
    assert set(names()) >= {"euler", "ddim", "dpmpp_2m", "annealed_langevin"}
    assert names() == tuple(SAMPLERS)
    assert not set(SAMPLERS) & set(STEP_BY_STEP)


@pytest.mark.parametrize("name", [*SAMPLERS, *STEP_BY_STEP])
def test_every_sampler_says_what_it_is(name: str) -> None:
    info = get(name)
    assert info.name == name == info.function.__name__
    assert info.summary
    assert "19" in info.paper or "20" in info.paper
    assert info.schedule in (*SPACINGS, "karras", "exponential")
    first, *_ = inspect.getdoc(info.function).splitlines()
    assert "et al." in first or "&" in first
    longest = 30 if name in SAMPLERS else 40  # these also decide and count
    assert len(inspect.getsource(info.function).split('"""')[2].splitlines()) <= longest


def test_samplers_are_short() -> None:
    """The bodies, without what tells of the options."""

    def lines(function: Any) -> int:
        return len(inspect.getsource(function).split('"""')[2].strip().splitlines())

    counted = sorted(lines(info.function) for info in SAMPLERS.values())
    assert counted[len(counted) // 2] <= 25


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("dpmpp2m", "dpmpp_2m"), ("Euler", "euler"), ("euler_a", "euler"), ("dimm", "ddim")],
)
def test_near_misses_are_named(wrong: str, meant: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"Did you mean .*{meant}") as caught:
        get(wrong)
    assert caught.value.details["param"] == "sampler"


@pytest.mark.parametrize("wrong", ["zzzzzz", "", 3, None])
def test_unknown_names(wrong: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"sampler: got .*, allowed are euler"):
        trace(wrong, [1.0, 0.0])


def test_functions_stand_for_themselves() -> None:
    def mine(m: Any, x: Any, sigmas: Any) -> Any:
        return x

    assert resolve(mine) == ("mine", mine)

    class Callable_:  # noqa: N801
        def __call__(self, m: Any, x: Any, sigmas: Any) -> Any:
            return m.denoise(x, sigmas[0])

    assert trace(Callable_(), [1.0, 0.0]).name == "Callable_"
