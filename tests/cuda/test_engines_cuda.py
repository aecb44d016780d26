"""The bundled model compiled for a GPU, with the fake driver computing our kernels and ONNX
Runtime's CPU provider the rest: the same pictures as on the CPU, and the choice of what is opened.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import textopia_fast as tx
from tests.support.fake_cuda import FakeCuda
from textopia_fast import stages
from textopia_fast.errors import ConfigurationError

PROMPT = "a red circle on a blue background"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    found = FakeCuda()
    monkeypatch.setattr(stages, "open_device", lambda device: found.gpu())
    return found


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


def picture(pipe: tx.Pipeline, **options: object) -> np.ndarray:
    return pipe(PROMPT, num_inference_steps=4, seed=7, output_type="np", **options).images


def psnr(found: np.ndarray, wanted: np.ndarray) -> float:
    """Of pictures in 0..1, decibels."""
    return float(-10 * np.log10(np.mean((np.float64(found) - wanted) ** 2)))


def test_float16_makes_the_picture_of_the_cpu(fake: FakeCuda, cache: Path) -> None:
    pipe = tx.Pipeline.from_pretrained("tiny-shapes", device="cuda", cache_dir=cache)
    assert pipe.engine is not None
    assert pipe.engine.target == "cuda-fp16"
    found = picture(pipe)
    wanted = picture(tx.Pipeline.from_pretrained("tiny-shapes", precision="fp32"))
    assert psnr(found, wanted) >= 38
    launched = [line.split(" ") for line in fake.calls() if line.startswith("cuLaunchKernel ")]
    kernels = Counter(words[1] for words in launched)
    # In each of 4 steps. The CPU provider multiplies no float16 and widens what it can, so that
    # some of them are float32.
    assert kernels["attention"] >= 4 * 14
    assert kernels["geglu"] == 4 * 7
    assert ("group_norm", "fp16") in {(words[1], words[2]) for words in launched}


def test_float32_runs_the_graphs_as_exported(fake: FakeCuda, cache: Path) -> None:
    pipe = tx.Pipeline.from_pretrained(
        "tiny-shapes", device="cuda", precision="fp32", cache_dir=cache
    )
    assert pipe.engine is None


def test_bfloat16_is_an_engine_of_its_own(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opened as far as the sessions: the CPU provider multiplies no bfloat16."""
    opened = []

    def remember(*arguments: object) -> None:
        opened.append(arguments)
        raise ConfigurationError("enough")

    monkeypatch.setattr(stages.Graphs, "open", remember)
    with pytest.raises(ConfigurationError, match="enough"):
        tx.Pipeline.from_pretrained(
            "tiny-shapes", device="cuda:1", precision="bf16", cache_dir=cache
        )
    (_, engine, _, _, device, _) = opened[0]
    assert (engine.target, device) == ("cuda-bf16", "cuda:1")
