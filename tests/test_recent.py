"""What is kept for the last few keys."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from textopia_fast.recent import Recent


def test_the_last_ones_are_kept_and_the_oldest_goes_first() -> None:
    made: list[str] = []
    recent = Recent(lambda key: made.append(key) or f"of {key}", 2)
    assert [recent(key) for key in "abab"] == ["of a", "of b", "of a", "of b"]
    assert made == ["a", "b"]
    recent("a")  # now "b" is the oldest
    recent("c")
    recent("a")
    assert made == ["a", "b", "c"]
    recent("b")
    assert made == ["a", "b", "c", "b"]


def test_the_oldest_is_let_go_before_another_is_made() -> None:
    live: set[int] = set()
    most = []

    class Thing:
        def __init__(self, key: int) -> None:
            self.key = key
            live.add(key)
            most.append(len(live))

        def __del__(self) -> None:
            live.discard(self.key)

    recent = Recent(Thing, 2)
    for key in range(5):
        recent(key)
    assert max(most) == 2


def test_many_threads_make_one() -> None:
    made = []
    gate = threading.Barrier(4)
    recent = Recent(lambda key: made.append(key) or object(), 2)

    def ask(_: int) -> object:
        gate.wait()
        return recent("key")

    with ThreadPoolExecutor(4) as pool:
        assert len({id(found) for found in pool.map(ask, range(4))}) == 1
    assert made == ["key"]


def test_a_failure_is_not_kept() -> None:
    answers = [ValueError("no"), 1]

    def make(key: str) -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    recent = Recent(make, 1)
    with pytest.raises(ValueError, match="no"):
        recent("key")
    assert recent("key") == 1
