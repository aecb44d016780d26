"""Stopping runs from another thread."""

from __future__ import annotations

import contextlib
import threading
import time

import numpy as np
import pytest

from tests.ort import graphs
from textopia_fast import _core, _ort, errors


@pytest.fixture(scope="module")
def long_graph() -> _core.Session:
    """Thousands of nodes of a few microseconds each: many places to stop at, and none is long."""
    return _ort.create_session(
        graphs.matmul_chain(64, 3000), label="unet", threads=1, optimization_level=0
    )


def bound(session: _core.Session) -> tuple[_core.Binding, np.ndarray]:
    x = np.random.default_rng(1).standard_normal((64, 64)).astype(np.float32)
    y = np.empty_like(x)
    binding = _core.Binding(session)
    binding.input("x", x)
    binding.output("y", y)
    return binding, y


def test_stops_a_run_and_the_binding_stays_usable(long_graph):
    binding, y = bound(long_graph)
    control = _core.RunControl()
    binding.run(control)
    expected = y.copy()

    finished = threading.Event()
    caught: list[BaseException] = []

    def work() -> None:
        try:
            while True:
                binding.run(control)
        except BaseException as error:
            caught.append(error)
        finished.set()

    thread = threading.Thread(target=work)
    thread.start()
    control.terminate()
    assert finished.wait(30)  # only so that a failure ends; the run stops at its next node
    thread.join()
    assert isinstance(caught[0], errors.GenerationCancelled)
    assert caught[0].details["stage"] == "unet"

    assert control.is_terminated
    with pytest.raises(errors.GenerationCancelled):
        binding.run(control)
    control.reset()
    assert not control.is_terminated
    y[:] = 0
    binding.run(control)
    np.testing.assert_array_equal(y, expected)


def test_stops_in_the_middle_of_one_run(long_graph):
    # The timer is to fire while the one run lasts. How long that is depends on the machine, and a
    # busy one fires late: so several delays are tried, several times.
    binding, _ = bound(long_graph)
    start = time.perf_counter()
    binding.run()
    duration = time.perf_counter() - start
    control = _core.RunControl()
    for attempt in range(100):
        control.reset()
        timer = threading.Timer(duration * (attempt % 10) / 20, control.terminate)
        timer.start()
        try:
            binding.run(control)
        except errors.GenerationCancelled as error:
            if "terminate" in error.details["cause"] and "before" not in error.details["cause"]:
                return
        finally:
            timer.join()
    pytest.fail("no run was stopped in its middle")


def test_terminated_before_the_first_run():
    session = _ort.create_session(graphs.add())
    x = np.ones((1, 16), np.float32)
    control = _core.RunControl()
    control.terminate()
    with pytest.raises(errors.GenerationCancelled):
        session.run({"a": x, "b": x}, control=control)
    control.reset()
    assert session.run({"a": x, "b": x}, control=control)["y"][0, 0] == 2


def test_one_control_stops_all_its_runs_and_no_others(long_graph):
    control = _core.RunControl()
    stopped: list[str] = []
    others: list[str] = []

    def work(with_control: bool) -> None:
        binding, _ = bound(long_graph)
        try:
            if with_control:
                while True:
                    binding.run(control)
            for _ in range(3):
                binding.run()
            others.append("finished")
        except errors.GenerationCancelled as error:
            stopped.append(error.code)

    threads = [threading.Thread(target=work, args=(flag,)) for flag in (True, True, False)]
    for thread in threads:
        thread.start()
    control.terminate()
    for thread in threads:
        thread.join()
    assert stopped == ["cancelled", "cancelled"]
    assert others == ["finished"]


def test_terminate_and_reset_from_many_threads():
    session = _ort.create_session(graphs.add())
    binding = _core.Binding(session)
    x, y = np.ones((1, 16), np.float32), np.empty((1, 16), np.float32)
    binding.input("a", x)
    binding.input("b", x)
    binding.output("y", y)
    control = _core.RunControl()
    stop = threading.Event()

    def toggle() -> None:
        while not stop.is_set():
            control.terminate()
            control.reset()

    threads = [threading.Thread(target=toggle) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            with contextlib.suppress(errors.GenerationCancelled):
                binding.run(control)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    # However the calls met, both halves of the control agree afterwards.
    control.reset()
    binding.run(control)
    np.testing.assert_array_equal(y, 2 * x)
