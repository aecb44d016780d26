"""The pipeline on a tiny random model: what a request means, what is refused, and what never
changes."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import textopia_fast as tx
from textopia_fast import _core

TINY_SD = Path(__file__).parent / "golden" / "tiny_sd"
FAST = {"num_inference_steps": 3, "sampler": "dpmpp_2m", "output_type": "np"}


@pytest.fixture(scope="module")
def pipe():
    with tx.Pipeline.from_pretrained(TINY_SD) as pipeline:
        yield pipeline


def images_of(pipe, prompt="a red circle", **arguments):
    return pipe(prompt, **{**FAST, **arguments}).images


def test_output_types(pipe):
    pictures = pipe("a red circle", **{**FAST, "output_type": "pil"}, seed=1).images
    array = images_of(pipe, seed=1)
    latents = images_of(pipe, seed=1, output_type="latent")
    facts = pipe.directory.facts
    factor = facts.vae_scale_factor
    assert array.shape == (1, facts.default_height, facts.default_width, 3)
    assert array.dtype == np.float32
    assert 0.0 <= array.min() <= array.max() <= 1.0
    assert latents.shape == (1, 4, facts.default_height // factor, facts.default_width // factor)
    np.testing.assert_array_equal(np.asarray(pictures[0]), (array[0] * 255).round())


def test_every_image_of_a_batch_is_the_image_made_alone(pipe):
    prompts = ["a red circle", "a blue square"]
    batch = pipe(prompts, **FAST, num_images_per_prompt=2, seed=40)
    assert batch.seeds == (40, 41, 42, 43)
    for k, seed in enumerate(batch.seeds):
        alone = images_of(pipe, prompts[k // 2], seed=seed)
        np.testing.assert_array_equal(batch.images[k], alone[0])


@pytest.mark.parametrize("sampler", ["euler_ancestral", "ddpm", "annealed_langevin"])
def test_that_holds_for_samplers_that_draw(pipe, sampler):
    batch = images_of(pipe, sampler=sampler, num_images_per_prompt=3, seed=[9, 2, 5])
    for k, seed in enumerate([9, 2, 5]):
        np.testing.assert_array_equal(batch[k], images_of(pipe, sampler=sampler, seed=seed)[0])


def test_seeds(pipe):
    drawn = pipe("a red circle", **FAST)
    again = pipe("a red circle", **FAST, seed=drawn.seeds[0])
    np.testing.assert_array_equal(drawn.images, again.images)
    assert pipe("a red circle", **FAST).seeds != pipe("a red circle", **FAST).seeds
    assert not np.array_equal(images_of(pipe, seed=1), images_of(pipe, seed=2))
    top = 2**64 - 1
    assert pipe("a red circle", **FAST, seed=top).seeds == (top,)


@pytest.mark.parametrize("noise", ["torch", "cuda", "philox"])
def test_noise_kinds(pipe, noise):
    one = images_of(pipe, noise=noise, seed=3)
    np.testing.assert_array_equal(one, images_of(pipe, noise=noise, seed=3))
    np.testing.assert_array_equal(
        one[0], images_of(pipe, noise=noise, seed=2, num_images_per_prompt=2)[1]
    )


def test_latents_and_embeddings_of_the_callers(pipe):
    x = tx.Noise.torch([7]).randn((1, 4, 8, 8))
    np.testing.assert_array_equal(images_of(pipe, seed=7), images_of(pipe, latents=x, seed=0))
    positive = pipe._graphs.text_encoder.encode(("a red circle",))
    negative = pipe._graphs.text_encoder.encode(("",))
    given = images_of(pipe, None, prompt_embeds=positive, negative_prompt_embeds=negative, seed=7)
    np.testing.assert_array_equal(given, images_of(pipe, seed=7))


def test_sizes(pipe):
    assert images_of(pipe, height=32, width=128, seed=1).shape == (1, 32, 128, 3)


def test_guidance_of_one_or_less_is_the_prompt_alone(pipe):
    plain = images_of(pipe, guidance_scale=1.0, seed=1)
    np.testing.assert_array_equal(plain, images_of(pipe, guidance_scale=0.0, seed=1))
    np.testing.assert_array_equal(
        plain, images_of(pipe, guidance_scale=1.0, negative_prompt="blue", seed=1)
    )
    assert not np.array_equal(plain, images_of(pipe, guidance_scale=7.5, seed=1))


def test_negative_prompts(pipe):
    both = images_of(pipe, ["a red circle"] * 2, negative_prompt=["", "blue"], seed=[1, 1])
    assert not np.array_equal(both[0], both[1])
    np.testing.assert_array_equal(both[1], images_of(pipe, negative_prompt="blue", seed=1)[0])


def test_a_sampler_of_the_callers_own(pipe):
    def plain_euler(m, x, sigmas):
        for sigma, sigma_next in pairwise(sigmas):
            x0 = m.denoise(x, sigma)
            x = x0 + sigma_next / sigma * (x - x0)
            m.step(x, denoised=x0)
        return x

    own = images_of(pipe, sampler=plain_euler, seed=4)
    # The same mathematics in another order of operations: float32 rounding of an image in 0..1.
    np.testing.assert_allclose(own, images_of(pipe, sampler="euler", seed=4), atol=2e-5)


def test_progress_and_preview(pipe):
    steps, previews = [], []
    images_of(
        pipe,
        seed=1,
        progress=lambda step, total: steps.append((step, total)),
        preview=lambda step, denoised: previews.append(denoised),
    )
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert [preview.shape for preview in previews] == [(1, 4, 8, 8)] * 3
    counter = tx.Progress()
    images_of(pipe, seed=1, progress=counter)
    assert (counter.steps_done, counter.steps_total) == (3, 3)


def test_timings_and_parameters(pipe):
    out = pipe("a red circle", **FAST, seed=1)
    assert set(out.timings) == {"text_encoder", "denoise", "vae_decoder", "total"}
    assert out.parameters["sampler"] == "dpmpp_2m"
    assert out.parameters["num_inference_steps"] == 3
    assert len(out.parameters["sigmas"]) == 4


def test_threads_share_one_pipeline(pipe):
    expected = {seed: images_of(pipe, seed=seed, sampler="euler_ancestral") for seed in range(8)}
    found: dict[int, np.ndarray] = {}

    def work(seed):
        found[seed] = images_of(pipe, seed=seed, sampler="euler_ancestral")

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for seed, image in expected.items():
        np.testing.assert_array_equal(found[seed], image)


def test_cancel_and_deadline(pipe):
    token = tx.CancelToken()

    def cancel_at_ten(step, total):
        if step == 10:
            token.cancel()

    with pytest.raises(tx.GenerationCancelled) as caught:
        images_of(pipe, num_inference_steps=1000, cancel=token, progress=cancel_at_ten)
    assert caught.value.details["steps_done"] == 10
    with pytest.raises(tx.GenerationCancelled):
        images_of(pipe, cancel=token)
    with pytest.raises(tx.DeadlineExceededError):
        images_of(pipe, num_inference_steps=1000, deadline=0.02)
    assert images_of(pipe, deadline=600).shape == (1, 64, 64, 3)


def test_closing_lets_running_calls_end():
    pipeline = tx.Pipeline.from_pretrained(TINY_SD)
    counter = tx.Progress()
    results = []

    def work():
        results.append(images_of(pipeline, num_inference_steps=300, seed=1, progress=counter))

    thread = threading.Thread(target=work)
    thread.start()
    while counter.steps_done < 1:
        time.sleep(1e-3)
    pipeline.close()
    thread.join()
    assert np.isfinite(results[0]).all()
    with pytest.raises(tx.EngineClosedError):
        images_of(pipeline)
    pipeline.close()  # twice is once


def test_a_long_prompt_is_cut_with_a_warning(pipe):
    with pytest.warns(tx.TextopiaWarning, match="was not used"):
        images_of(pipe, "red circle " * 200, seed=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        images_of(pipe, "", seed=1)


INVALID = {
    "prompt": [None, 3, [], ["a", 3], b"bytes"],
    "height": [0, -8, 65, 2**20, 64.5, "64", True],
    "width": [0, 63, float("nan")],
    "num_inference_steps": [0, -1, 1001, 2.5, "5", True],
    "guidance_scale": [float("nan"), float("inf"), "7", True],
    "num_images_per_prompt": [0, -1, 257, 1.5],
    "negative_prompt": [3, ["a", "b"], []],
    "eta": [float("nan"), "0"],
    "seed": [-1, 2**64, 1.0, "1", True, [1, 2], [-1], float("nan")],
    "output_type": ["pt", 3, None],
    "sampler": ["eulr", 3],
    "schedule": ["karas"],
    "noise": ["mt"],
    "latents": [np.zeros((1, 4, 8, 9), np.float32), "latents"],
    "prompt_embeds": [np.zeros((1, 3, 3), np.float32)],
    "deadline": [float("nan"), "soon"],
}


@pytest.mark.parametrize(("name", "value"), [(k, v) for k, vs in INVALID.items() for v in vs])
def test_bad_parameters_are_named(pipe, name, value):
    arguments = {"prompt": "a red circle", **FAST, name: value}
    with pytest.raises(tx.InvalidRequestError) as caught:
        pipe(arguments.pop("prompt"), **arguments)
    assert name in str(caught.value) or caught.value.details.get("param") == name


def test_nearest_sampler_names_are_given(pipe):
    with pytest.raises(tx.InvalidRequestError, match="dpmpp_2m"):
        images_of(pipe, sampler="dpm++_2m")


@pytest.mark.parametrize("name", ["clip_skip"])
def test_what_cannot_be_honoured_is_refused(pipe, name):
    with pytest.raises(tx.UnsupportedParameterError, match=name):
        images_of(pipe, **{name: 1})


def test_unknown_scheduler_class_needs_a_sampler(tmp_path):
    model = tmp_path / "model"
    shutil.copytree(TINY_SD, model)
    config = model / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "_class_name": "Mystery"}))
    pipeline = tx.Pipeline.from_pretrained(model)
    with pytest.raises(tx.UnsupportedModelError, match="EulerDiscreteScheduler"):
        pipeline("a red circle", num_inference_steps=2)
    assert images_of(pipeline, seed=1).shape == (1, 64, 64, 3)


def test_a_model_recommends_its_own_defaults(tmp_path):
    model = tmp_path / "model"
    shutil.copytree(TINY_SD, model)
    index = json.loads((model / "model_index.json").read_text())

    def used(**defaults):
        index["_generation_defaults"] = defaults
        (model / "model_index.json").write_text(json.dumps(index))
        pipeline = tx.Pipeline.from_pretrained(model)
        found = pipeline("a red circle", sampler="euler", output_type="latent").parameters
        return found["num_inference_steps"], found["guidance_scale"]

    assert used() == (50, 7.5)
    assert used(num_inference_steps=3, guidance_scale=2.0) == (3, 2.0)
    with pytest.raises(tx.ModelFormatError, match="_generation_defaults"):
        used(num_inference_steps="many")


@pytest.mark.parametrize("images_per_run", [None, 1, 3])
def test_images_that_share_runs_differ_at_most_in_last_bits(pipe, images_per_run):
    together = tx.Pipeline.from_pretrained(TINY_SD, images_per_run=images_per_run)
    # float32 rounding of other matrix sizes, on images in 0..1.
    np.testing.assert_allclose(
        images_of(together, num_images_per_prompt=4, seed=1),
        images_of(pipe, num_images_per_prompt=4, seed=1),
        atol=1e-4,
    )


@pytest.mark.parametrize(
    ("option", "value"), [("device", "cuda"), ("precision", "int4"), ("provider", "cuda")]
)
def test_options_of_another_version(option, value):
    with pytest.raises(tx.ConfigurationError, match=option):
        tx.Pipeline.from_pretrained(TINY_SD, **{option: value})


def test_latents_that_are_not_finite_never_become_a_picture(pipe):
    x = np.full((1, 4, 8, 8), np.inf, np.float32)
    with pytest.raises(tx.NumericalError) as caught:
        images_of(pipe, latents=x)
    assert caught.value.details["stage"] == "denoising"
    bad = np.full((1, 24, 32), np.nan, np.float32)
    with pytest.raises((tx.NumericalError, tx.InvalidRequestError)):
        images_of(pipe, None, prompt_embeds=bad)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_gets_a_typed_error(pipe):
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # Python 3.12 warns of fork with threads
        child = os.fork()
    if child == 0:
        try:
            images_of(pipe)
            outcome = "no error"
        except tx.TextopiaError as error:
            outcome = error.code
        except BaseException as error:
            outcome = repr(error)
        os.write(write_end, outcome.encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read_end, 200).decode() == "forked_process"


def test_the_version_is_one():
    assert tx.__version__ == _core.__version__
    project = (Path(__file__).parents[1] / "pyproject.toml").read_text()
    assert f'version = "{tx.__version__}"' in project


def test_the_parameters_of_an_output_make_the_same_picture(pipe):
    out = pipe("a red circle", seed=3, timesteps=[900, 500, 100], sampler="ddim", eta=0.5)
    used = out.parameters
    assert used["num_inference_steps"] == 3
    names = ("prompt", "negative_prompt", "guidance_scale", "sampler", "sampler_options", "sigmas")
    again = pipe(**{name: used[name] for name in names}, seed=out.seeds, output_type="np")
    np.testing.assert_array_equal(
        (again.images[0] * 255).round().astype(np.uint8), np.asarray(out.images[0])
    )


def test_names_of_objects(pipe):
    assert repr(pipe) == "Pipeline('tiny_sd')"
    other = tx.Pipeline.from_pretrained(TINY_SD)
    other.close()
    assert repr(other) == "Pipeline('tiny_sd', closed)"
