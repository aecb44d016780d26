"""Time and prompt graphs beside a loop on a GPU, with the fake driver: the parts give the whole."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import textopia_fast as tx
from tests.engine.test_hoisted import (
    LEVELS,
    NEGATIVE,
    POSITIVE,
    SCALE,
    START,
    expected,
    run,
    split,
)
from tests.support.fake_cuda import FakeCuda
from textopia_fast import _core
from textopia_fast.errors import UnsupportedModelError


@pytest.fixture
def fake() -> FakeCuda:
    return FakeCuda()


@pytest.fixture
def gpu(fake: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> _core.Gpu:
    """All sessions of a test are made for it."""
    made = fake.gpu()
    on_gpu = partial(tx._ort.create_session, gpu=made)
    monkeypatch.setattr(tx._ort, "create_session", on_gpu)
    return made


@pytest.mark.parametrize("guidance", [[3.0] * 3, [1.0] * 3, [2.0, 1.0, 4.0]])
@pytest.mark.parametrize("images", [None, 1, 2])
def test_the_parts_give_the_whole(
    gpu: _core.Gpu, images: int | None, guidance: list[float]
) -> None:
    found = run(split(False, images, gpu), guidance)
    np.testing.assert_allclose(found, expected(guidance), rtol=2e-6, atol=2e-6)


def test_a_step_copies_its_time_features_and_nothing_else(fake: FakeCuda, gpu: _core.Gpu) -> None:
    denoiser = split(False, None, gpu)
    run(denoiser, [3.0] * 3)
    fake.clear()
    run(denoiser, [3.0] * 3)
    names = fake.names()
    # 2 features for each of 2 x 3 rows, in float32; all of them are uploaded once.
    copies = [line for line in fake.calls() if line.startswith("cuMemcpyDtoDAsync")]
    assert len(copies) == len(LEVELS)
    assert all(line.split(" ")[1] == str(2 * 6 * 4) for line in copies)
    assert names.count("cuLaunchKernel") == len(LEVELS) + 1  # the first scales the latents


def test_a_prompt_may_change_between_steps(gpu: _core.Gpu) -> None:
    """Its graph is run again, and the loop reads what it gives from then on."""
    other = np.float32(2) * POSITIVE

    def change(evaluation: int, latents: np.ndarray) -> dict | None:
        return {"cond": {"text": other}} if evaluation == len(LEVELS) - 2 else None

    found = run(split(False, None, gpu), [3.0] * 3, on_evaluation=change)
    np.testing.assert_allclose(found, changed(other), rtol=2e-6, atol=2e-6)
    assert np.abs(found - expected([3.0] * 3)).max() > 0.1


def changed(other: np.ndarray) -> np.ndarray:
    """`expected` with another prompt in the last step."""
    x = START.astype(np.float64)
    for step, level in enumerate(LEVELS):
        positive = other if step == len(LEVELS) - 1 else POSITIVE
        halves = [
            0.5 * x * text * SCALE + 3 * level * SCALE + 2 * text for text in (NEGATIVE, positive)
        ]
        x = 0.25 * x - 2 * halves[0] + 3 * halves[1]
    return x


def test_a_shared_prefix_is_for_the_cpu(gpu: _core.Gpu) -> None:
    with pytest.raises(UnsupportedModelError, match="share their prefix runs on the CPU only"):
        split(True, None, gpu)
