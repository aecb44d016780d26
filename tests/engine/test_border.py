"""Values that no well-meaning caller sends: the core answers with typed errors, never crashes."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import textopia_fast as tx
from tests.support.networks import tanh_network
from textopia_fast import _core
from textopia_fast.errors import InvalidRequestError, OutOfMemoryError

ROOT = Path(__file__).parents[2]
CONTEXT = np.random.default_rng(0).standard_normal((1, 6, 4)).astype(np.float32)
START = np.random.default_rng(1).standard_normal((1, 4, 5, 3)).astype(np.float32)


def program(level: float = 3.0, steps: int = 1) -> _core.Program:
    """x <- network(x), `steps` times."""
    rows: list[tuple] = []
    for step in range(steps):
        rows.append(("denoise", 0, 0, 1.0, level))
        rows.append(("combine", 0, [("e", 0, 1.0)], 0.0))
        rows.append(("step", step, 0, [("e", 0, 1.0)]))
    return _core.Program(rows, latents=1, outputs=1, result=0)


@pytest.fixture(scope="module")
def denoiser() -> tx.Denoiser:
    return tx.Denoiser(tanh_network(), threads=1)


def sample(denoiser: tx.Denoiser, steps: int = 1, level: float = 3.0, **options: Any) -> np.ndarray:
    options.setdefault("cond", {"context": CONTEXT})
    return _core.sample(denoiser._native, program(level, steps), START, **options)


def scalar_network(dtype: int = TensorProto.FLOAT) -> bytes:
    """out_sample = sample * s + t, with a conditioning input `s` without axes."""
    nodes = [
        helper.make_node("Cast", ["s"], ["s_real"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["sample", "s_real"], ["scaled"]),
        helper.make_node("Add", ["scaled", "timestep"], ["out_sample"]),
    ]
    inputs = [
        helper.make_tensor_value_info("sample", TensorProto.FLOAT, ["batch", 4]),
        helper.make_tensor_value_info("timestep", TensorProto.FLOAT, []),
        helper.make_tensor_value_info("s", dtype, []),
    ]
    outputs = [helper.make_tensor_value_info("out_sample", TensorProto.FLOAT, ["batch", 4])]
    graph = helper.make_graph(nodes, "scalar_network", inputs, outputs)
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()


# --- conditioning


def test_conditioning_need_not_be_contiguous(denoiser: tx.Denoiser) -> None:
    strided = np.repeat(CONTEXT, 2, axis=2)[:, :, ::2]
    unaligned = np.frombuffer(b"\0" + CONTEXT.tobytes(), np.uint8)[1:].view(np.float32)
    expected = sample(denoiser)
    for context in (strided, unaligned.reshape(CONTEXT.shape), np.asfortranarray(CONTEXT)):
        np.testing.assert_array_equal(sample(denoiser, cond={"context": context}), expected)


def test_conditioning_that_is_no_array_by_name(denoiser: tx.Denoiser) -> None:
    with pytest.raises(InvalidRequestError, match=r'"context" is a list.*numpy\.ndarray'):
        sample(denoiser, cond={"context": [[[np.float32(1.0)]]]})
    with pytest.raises(InvalidRequestError, match="name of an input is 3"):
        sample(denoiser, cond={3: CONTEXT})
    with pytest.raises(InvalidRequestError, match='"other" has a negative half'):
        sample(denoiser, uncond={"other": CONTEXT})
    with pytest.raises(InvalidRequestError, match="dtype complex64"):
        sample(denoiser, cond={"context": CONTEXT.astype(np.complex64)})


def test_conditioning_may_change_hands_during_the_run(denoiser: tx.Denoiser) -> None:
    cond = {"context": CONTEXT.copy()}

    def empty(step: int, latents: np.ndarray, denoised: np.ndarray | None) -> None:
        cond.clear()
        gc.collect()

    found = sample(denoiser, steps=3, cond=cond, on_step=empty)
    np.testing.assert_array_equal(found, sample(denoiser, steps=3))


def test_rows_without_elements(denoiser: tx.Denoiser) -> None:
    """What the mean over no tokens is, the graph decides."""
    assert sample(denoiser, cond={"context": np.zeros((1, 0, 4), np.float32)}).shape == START.shape


def test_a_scalar_conditions_both_halves() -> None:
    denoiser = tx.Denoiser(scalar_network(), threads=1)
    x = np.ones((2, 4), np.float32)

    def run(**options: Any) -> np.ndarray:
        table = tx.samplers.TrainingTable(1000, 0.00085, 0.012, "scaled_linear")
        return tx.sample(denoiser, x, tx.trace("euler", tx.schedules.discrete(2, table)), **options)

    plain = run(cond={"s": 0.5})
    assert plain.shape == (2, 4)
    assert np.ptp(plain) == 0
    # Both halves are equal, so guidance changes nothing but the rounding.
    guided = run(cond={"s": np.float32(0.5)}, uncond={"s": np.float64(0.5)}, guidance=3.0)
    np.testing.assert_allclose(guided, plain, rtol=1e-5)
    with pytest.raises(InvalidRequestError, match="negative half gave another value"):
        run(cond={"s": 0.5}, uncond={"s": 0.25}, guidance=3.0)


def test_conditioning_in_bfloat16_arrives_as_bits() -> None:
    denoiser = tx.Denoiser(scalar_network(TensorProto.BFLOAT16), threads=1)
    x = np.ones((1, 4), np.float32)
    one_and_a_half = np.array(0x3FC0, np.uint16)
    found = _core.sample(denoiser._native, program(2.0), x, cond={"s": one_and_a_half})
    np.testing.assert_array_equal(found, np.full((1, 4), 3.5, np.float32))
    with pytest.raises(InvalidRequestError, match="got float32, the graph wants bfloat16"):
        _core.sample(denoiser._native, program(2.0), x, cond={"s": np.array(1.5, np.float32)})


# --- numbers


@pytest.mark.parametrize("deadline", [1e10, 1e300])
def test_a_deadline_further_than_the_clock_counts_is_no_deadline(
    denoiser: tx.Denoiser, deadline: float
) -> None:
    np.testing.assert_array_equal(sample(denoiser, timeout=deadline), sample(denoiser))


def test_a_deadline_long_past(denoiser: tx.Denoiser) -> None:
    with pytest.raises(tx.DeadlineExceededError):
        sample(denoiser, timeout=-1e300)


@pytest.mark.parametrize(("dtype", "level"), [("int64", 1e30), ("int64", -(2.0**63))])
def test_a_noise_level_beyond_the_integers_of_the_graph(dtype: str, level: float) -> None:
    denoiser = tx.Denoiser(tanh_network(time_dtype=dtype), threads=1)
    with pytest.raises(InvalidRequestError, match="does not fit the graph's integer"):
        sample(denoiser, level=level)


@pytest.mark.parametrize(
    ("count", "error"),
    [
        (2**62, InvalidRequestError),
        (-1, InvalidRequestError),
        (2**45, OutOfMemoryError),
    ],
)
def test_draws_of_an_impossible_size(count: int, error: type[Exception]) -> None:
    with pytest.raises(error, match=str(count)):
        _core.NoiseStream.philox([1]).draw(1, count)


def test_draws_of_no_size() -> None:
    assert _core.NoiseStream.array(np.zeros((2, 0), np.float32)).draw(1, 0).shape == (1, 0)
    assert _core.NoiseStream.torch([1]).draw(1, 0).shape == (1, 0)


# --- objects


def test_none_is_no_session() -> None:
    with pytest.raises(TypeError):
        _core.Denoiser(None, sample="sample", noise_level="timestep", output="out_sample")
    with pytest.raises(TypeError):
        _core.Binding(None)


@pytest.mark.parametrize(
    "row",
    [
        (),
        ("denoise",),
        ("denoise", 0, 0, 1.0),
        ("clamp", 0, 0, -1.0, 1.0, "more"),
        ("combine", 0, 5, 0.0),
        ("combine", 0, [("x",)], 0.0),
        ("combine", 0, [("x", 0, 1.0, 2.0)], 0.0),
        ("combine", 0, [("y", 0, 1.0)], 0.0),
        ("combine", 2**40, [("x", 0, 1.0)], 0.0),
        ("langevin_step", 0, 0, 0, 1.0, "bach"),
        ("step", 0, 0, [3]),
        "denoise",
        None,
    ],
)
def test_rows_that_are_no_instruction(row: Any) -> None:
    with pytest.raises(InvalidRequestError, match="program"):
        _core.Program([row], latents=1, outputs=1, result=0)


def test_progress_starts_anew_with_each_call(denoiser: tx.Denoiser) -> None:
    progress = _core.Progress()
    sample(denoiser, steps=3, progress=progress)
    assert (progress.steps_done, progress.steps_total) == (3, 3)
    token = _core.CancelToken()
    token.cancel()
    with pytest.raises(tx.GenerationCancelled):
        sample(denoiser, steps=2, progress=progress, cancel=token)
    assert (progress.steps_done, progress.steps_total) == (0, 2)


def test_a_token_outlives_the_runs_that_it_watched(denoiser: tx.Denoiser) -> None:
    token = _core.CancelToken()
    timestep = np.zeros((), np.float32)
    feeds = {"sample": START, "timestep": timestep, "context": CONTEXT}
    expected = denoiser.session.run(feeds)["out_sample"]
    found = denoiser.session.run(feeds, cancel=token)["out_sample"]
    np.testing.assert_array_equal(found, expected)
    gc.collect()
    token.cancel()
    with pytest.raises(tx.GenerationCancelled):
        denoiser.session.run(feeds, cancel=token)
    control = _core.RunControl()
    with pytest.raises(tx.GenerationCancelled):
        denoiser.session.run(feeds, control=control, cancel=token)
    assert control.is_terminated


IGNORE_DURING_THE_RUN = """
import os, signal
from tests.engine.test_border import sample, tanh_network, tx

def ignore(step, latents, denoised):
    signal.signal(signal.SIGINT, signal.SIG_IGN)

sample(tx.Denoiser(tanh_network(), threads=1), steps=2, on_step=ignore)
os.kill(os.getpid(), signal.SIGINT)
print("alive")
"""


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_a_handler_that_a_callback_installs_stays() -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", IGNORE_DURING_THE_RUN],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "alive\n", "")
