"""What the loop promises beside numbers: no Python, no allocation, prompt ends, no shared state."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import textopia_fast as tx
from tests.support.cheap_unet import TOKENS, cheap_unet

ROOT = Path(__file__).parent.parent
SUPPORT = Path(__file__).parent / "support"
TINY_SD = Path(__file__).parent / "golden" / "tiny_sd"
WIDTH = 8
TABLE = tx.samplers.TrainingTable(1000, 0.00085, 0.012, "scaled_linear")


@pytest.fixture(scope="module")
def cheap() -> tx.Denoiser:
    return tx.Denoiser(cheap_unet(WIDTH), threads=1)


@pytest.fixture(scope="module")
def tiny_sd() -> tx.Pipeline:
    return tx.Pipeline.from_pretrained(TINY_SD, threads=1)


def program(steps: int, sampler: str = "euler_ancestral") -> tx.Program:
    return tx.trace(sampler, tx.schedules.discrete(steps, TABLE))


def run(denoiser: tx.Denoiser, steps: int, **options: Any) -> np.ndarray:
    rng = np.random.default_rng(0)
    text = rng.standard_normal((2, TOKENS, WIDTH), np.float32)
    return tx.sample(
        denoiser,
        rng.standard_normal((1, 4, 8, 8), np.float32),
        program(steps),
        cond={"encoder_hidden_states": text[:1]},
        uncond={"encoder_hidden_states": text[1:]},
        guidance=7.5,
        noise=tx.Noise.torch(1),
        **options,
    )


# --- no Python in the loop


def python_events(work: Callable[[], Any]) -> int:
    """How many Python and C functions are entered or left by `work`, in this and in new threads."""
    events = 0

    def count(*_: Any) -> None:
        nonlocal events
        events += 1

    threading.setprofile(count)
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return events


def test_a_thousand_steps_enter_no_python_function(cheap: tx.Denoiser) -> None:
    programs = {steps: program(steps) for steps in (10, 1000)}
    text = np.ones((1, TOKENS, WIDTH), np.float32)

    def work(steps: int) -> Callable[[], Any]:
        x = np.ones((1, 4, 8, 8), np.float32)
        cond = {"encoder_hidden_states": text}
        noise = tx.Noise.torch(1)
        return lambda: tx.sample(cheap, x, programs[steps], cond=cond, noise=noise)

    for steps in programs:  # first calls may import or cache
        work(steps)()
    few, many = python_events(work(10)), python_events(work(1000))
    assert many == few
    assert few < 200, "the call itself should do little, too"


# --- no allocation in the loop


@pytest.fixture(scope="module")
def malloc_counter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("needs a C compiler and glibc")
    library = tmp_path_factory.mktemp("malloc") / "count_mallocs.so"
    source = SUPPORT / "count_mallocs.c"
    command = [compiler, "-O1", "-fno-builtin", "-shared", "-fPIC", "-o", library, source]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return library


@pytest.mark.parametrize(
    ("sampler", "noise", "options"),
    [
        ("euler", "torch", {}),
        ("euler_ancestral", "torch", {}),
        ("euler_ancestral", "philox", {}),
        ("heun", "torch", {}),
        ("dpmpp_2m", "torch", {}),
        ("dpmpp_2m_cfg_pp", "torch", {"sample": {"guidance_rescale": 0.7}}),
        ("ddim", "torch", {"trace": {"threshold": [0.995, 2.0]}}),
    ],
)
def test_steps_allocate_nothing(
    sampler: str, noise: str, options: dict[str, Any], malloc_counter: Path
) -> None:
    """A hundred more steps allocate what a hundred more bare graph runs allocate: none is ours."""
    environment = os.environ | {
        "LD_PRELOAD": str(malloc_counter),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    module = "tests.support.count_loop_mallocs"
    command = [sys.executable, "-m", module, sampler, noise, json.dumps(options)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["graph"] >= 0
    assert seen["loop"] == seen["graph"] * seen["evaluations"], seen


# --- ends


def test_cancel_from_another_thread_ends_within_one_step(cheap: tx.Denoiser) -> None:
    token = tx.CancelToken()
    steps_seen = []

    def on_step(step: int, latents: np.ndarray, denoised: np.ndarray | None) -> None:
        steps_seen.append(step)
        if step == 5:
            other = threading.Thread(target=token.cancel)
            other.start()
            other.join()

    with pytest.raises(tx.GenerationCancelled) as caught:
        run(cheap, 1000, cancel=token, on_step=on_step)
    assert steps_seen[-1] == 5
    assert caught.value.details["steps_done"] == 6


def test_cancel_without_any_callback() -> None:
    slow = tx.Denoiser(cheap_unet(WIDTH, repeat=400), threads=1)
    token, progress = tx.CancelToken(), tx.Progress()

    def cancel_soon() -> None:
        while progress.steps_done < 3:
            pass
        token.cancel()

    other = threading.Thread(target=cancel_soon)
    other.start()
    with pytest.raises(tx.GenerationCancelled):
        run(slow, 1000, cancel=token, progress=progress)
    other.join()
    assert 3 <= progress.steps_done < 1000


def test_a_cancelled_token_ends_a_call_before_its_first_step(cheap: tx.Denoiser) -> None:
    token, progress = tx.CancelToken(), tx.Progress()
    token.cancel()
    with pytest.raises(tx.GenerationCancelled):
        run(cheap, 10, cancel=token, progress=progress)
    assert progress.steps_done == 0


def test_deadline_ends_within_one_step(cheap: tx.Denoiser) -> None:
    steps_seen = []

    def on_step(step: int, latents: np.ndarray, denoised: np.ndarray | None) -> None:
        steps_seen.append(step)
        threading.Event().wait(0.3 if step == 2 else 0)

    with pytest.raises(tx.DeadlineExceededError) as caught:
        run(cheap, 1000, deadline=0.25, on_step=on_step)
    assert steps_seen[-1] <= 2
    assert caught.value.details["steps_done"] == len(steps_seen)


def test_deadline_in_the_past(cheap: tx.Denoiser) -> None:
    with pytest.raises(tx.DeadlineExceededError):
        run(cheap, 10, deadline=0.0)


CTRL_C = """
import os, signal, sys, threading
import textopia_fast as tx
from tests.support.cheap_unet import cheap_unet
from tests.test_loop_properties import WIDTH, run

slow = tx.Denoiser(cheap_unet(WIDTH, repeat=400), threads=1)
progress = tx.Progress()
seen = []

def press():
    while progress.steps_done < 5:
        pass
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=press, daemon=True).start()
try:
    run(slow, 1000, progress=progress)
except KeyboardInterrupt:
    print("interrupted", progress.steps_done)
print("then", run(slow, 3).shape)
"""


@pytest.mark.skipif(os.name != "posix", reason="sends SIGINT")
def test_ctrl_c_ends_the_run_and_leaves_the_process_usable() -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-c", CTRL_C]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("interrupted")
    assert 5 <= int(first.split()[1]) < 1000
    assert second == "then (1, 4, 8, 8)"


# --- no shared state


REQUESTS = [
    {"prompt": "a red circle", "sampler": "euler_ancestral", "guidance_scale": 7.5},
    {"prompt": "a small boat at night", "sampler": "dpmpp_2m", "guidance_scale": 3.0},
    {"prompt": "a dog", "sampler": "heun", "guidance_scale": 1.0, "num_images_per_prompt": 2},
    {"prompt": ["cat", "star"], "sampler": "ddim", "eta": 0.5, "negative_prompt": "dark"},
]


def test_eight_threads_give_the_serial_pictures(tiny_sd: tx.Pipeline) -> None:
    def picture(k: int) -> np.ndarray:
        request = REQUESTS[k % len(REQUESTS)]
        return tiny_sd(**request, num_inference_steps=6, seed=k, output_type="np").images

    serial = [picture(k) for k in range(16)]
    with ThreadPoolExecutor(8) as pool:
        concurrent = list(pool.map(picture, range(16)))
    for expected, found in zip(serial, concurrent, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("noise", ["torch", "cuda", "philox"])
@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2m"])
def test_an_image_of_a_batch_is_the_image_alone(
    tiny_sd: tx.Pipeline, sampler: str, noise: str
) -> None:
    options = {
        "prompt": "a large star above a mountain",
        "negative_prompt": "blurry",
        "num_inference_steps": 5,
        "sampler": sampler,
        "noise": noise,
        "output_type": "np",
    }
    batch = tiny_sd(**options, num_images_per_prompt=3, seed=40)
    assert batch.seeds == (40, 41, 42)
    for k in range(3):
        alone = tiny_sd(**options, seed=40 + k)
        np.testing.assert_array_equal(batch.images[k], alone.images[0])


def test_seeds_in_a_list_stand_for_themselves(tiny_sd: tx.Pipeline) -> None:
    options = {"num_inference_steps": 2, "output_type": "latent", "sampler": "euler_ancestral"}
    both = tiny_sd(["a cat", "a dog"], seed=[9, 3], **options).images
    for k, (prompt, seed) in enumerate([("a cat", 9), ("a dog", 3)]):
        np.testing.assert_array_equal(both[k], tiny_sd(prompt, seed=seed, **options).images[0])
