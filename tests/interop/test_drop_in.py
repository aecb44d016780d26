"""Pipelines under diffusers' names: loading, components, schedulers, threads. No torch needed."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import textopia_fast as tx
from tests.golden import edit_inputs as inputs
from textopia_fast.interop.drop_in import stand_in
from textopia_fast.precision import Choice

DIRECTORY = Path(__file__).parent.parent / "golden" / "tiny_sd"
FEW = {"num_inference_steps": 3, "output_type": "np", "seed": 1}
EULER = stand_in("EulerAncestralDiscreteScheduler", {**inputs.SD, "steps_offset": 1})


@pytest.fixture(scope="module")
def pipe() -> Any:
    return tx.StableDiffusionPipeline.from_pretrained(DIRECTORY, threads=1, safety_checker=None)


@pytest.mark.parametrize(
    "options",
    [
        {"torch_dtype": np.float32, "provider": "CPUExecutionProvider", "local_files_only": True},
        {"torch_dtype": "float32", "variant": None, "device_map": "cpu", "use_safetensors": True},
        {"torch_dtype": "auto", "requires_safety_checker": False, "cache_dir": "/nowhere"},
        {"providers": ["CPUExecutionProvider"], "feature_extractor": None, "export": False},
    ],
)
def test_options_that_ask_for_what_happens(options: dict[str, Any]) -> None:
    made = tx.StableDiffusionPipeline.from_pretrained(DIRECTORY, threads=1, **options)
    assert isinstance(made, tx.StableDiffusionPipeline)


@pytest.mark.parametrize(
    ("options", "precision"),
    [
        ({}, "auto"),
        ({"torch_dtype": "auto"}, "auto"),
        ({"torch_dtype": np.float32}, "fp32"),
        ({"dtype": "float32"}, "fp32"),
        ({"dtype": np.dtype(np.float32)}, "fp32"),
    ],
)
def test_a_dtype_that_is_named_is_the_one_of_the_networks(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], precision: str
) -> None:
    """Where "auto" would be bf16, too."""
    asked = []
    monkeypatch.setattr(
        "textopia_fast.pipeline.choose_precision",
        lambda given, *_: asked.append(given) or Choice("fp32", "a test", False),
    )
    tx.StableDiffusionPipeline.from_pretrained(DIRECTORY, threads=1, **options)
    assert asked == [precision]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("torch_dtype", np.float16),
        ("provider", "CUDAExecutionProvider"),
        ("export", True),
        ("safety_checker", object()),
        ("custom_pipeline", "lpw"),
        ("unet", object()),
        ("variant", "fp16"),
        ("session_options", object()),
    ],
)
def test_options_that_cannot_be_honoured(name: str, value: Any) -> None:
    with pytest.raises(tx.UnsupportedParameterError, match=name):
        tx.StableDiffusionPipeline.from_pretrained(DIRECTORY, threads=1, **{name: value})


def test_a_safety_checker_is_not_left_out_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "model"
    shutil.copytree(DIRECTORY, path)
    index = json.loads((path / "model_index.json").read_text())
    index["safety_checker"] = ["diffusers", "StableDiffusionSafetyChecker"]
    (path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(tx.UnsupportedParameterError, match="safety_checker"):
        tx.StableDiffusionPipeline.from_pretrained(path)
    tx.StableDiffusionPipeline.from_pretrained(path, safety_checker=None)


def test_it_is_the_native_pipeline(pipe: Any) -> None:
    out = pipe("a cat", **FEW)
    native = tx.Pipeline.from_pretrained(DIRECTORY, threads=1)("a cat", **FEW)
    np.testing.assert_array_equal(out.images, native.images)
    assert out.nsfw_content_detected is None
    assert out[0] is out.images is out["images"]
    assert len(out) == 1
    images, flags = pipe("a cat", **FEW, return_dict=False)
    np.testing.assert_array_equal(images, out.images)
    assert flags is None


def test_defaults_of_diffusers_not_of_the_model() -> None:
    """The bundled model recommends other values, which `tx.Pipeline` takes."""
    pipe = tx.StableDiffusionPipeline.from_pretrained("tiny-shapes", threads=1)
    steps: list[int] = []

    def count(call: Any, step: int, _t: Any, values: dict[str, Any]) -> dict[str, Any]:
        assert call.guidance_scale == 7.5
        steps.append(step)
        call._interrupt = step == 1
        return values

    (image,) = pipe("a red circle", seed=1, callback_on_step_end=count).images
    assert isinstance(image, Image.Image)
    assert steps == [0, 1]
    assert pipe("a red circle", seed=1, num_inference_steps=1).images[0].size == (64, 64)


def test_components_make_other_pipelines(pipe: Any) -> None:
    edit = tx.StableDiffusionImg2ImgPipeline(**pipe.components)
    again = tx.StableDiffusionInpaintPipeline.from_pipe(edit, scheduler=EULER)
    assert again.scheduler is EULER
    assert edit.unet.config.in_channels == edit.unet.config["in_channels"] == 4
    assert edit.vae.config.scaling_factor == pytest.approx(0.18215)
    assert edit.tokenizer.model_max_length == 77
    assert edit.vae_scale_factor == 8
    picture = Image.fromarray(inputs.picture(0))
    images = edit("a cat", picture, 0.5, **FEW).images
    native = tx.Pipeline.from_pretrained(DIRECTORY, threads=1)
    expected = native("a cat", image=picture, strength=0.5, **FEW).images
    np.testing.assert_array_equal(images, expected)
    with pytest.raises(tx.InvalidRequestError, match="unet"):
        tx.StableDiffusionPipeline(**{**pipe.components, "unet": object()})
    other = tx.StableDiffusionPipeline.from_pretrained(DIRECTORY, threads=1)
    with pytest.raises(tx.InvalidRequestError, match="different pipelines"):
        tx.StableDiffusionPipeline(**{**pipe.components, "vae": other.vae})


def test_the_scheduler_is_what_counts(pipe: Any) -> None:
    changed = tx.StableDiffusionPipeline.from_pipe(pipe)
    assert type(changed.scheduler).__name__ == "PNDMScheduler"
    plain = changed("a cat", **FEW).images
    changed.scheduler = EULER
    assert "EulerAncestralDiscreteScheduler" in repr(changed)
    ancestral = changed("a cat", **FEW).images
    native = tx.Pipeline.from_pretrained(DIRECTORY, threads=1)
    expected = native("a cat", **FEW, sampler=EULER).images
    np.testing.assert_array_equal(ancestral, expected)
    assert np.abs(ancestral - plain).max() > 1e-3
    np.testing.assert_array_equal(pipe("a cat", **FEW).images, plain)  # the other is untouched
    with pytest.raises(tx.UnsupportedModelError, match="VQDiffusionScheduler"):
        changed.scheduler = stand_in("VQDiffusionScheduler", {})
    with pytest.raises(tx.InvalidRequestError, match="scheduler"):
        changed.scheduler = "euler"


def test_the_scheduler_may_change_what_is_predicted(pipe: Any) -> None:
    changed = tx.StableDiffusionPipeline.from_pipe(pipe)
    changed.scheduler = stand_in("DDIMScheduler", {**inputs.SD, "prediction_type": "v_prediction"})
    eps = stand_in("DDIMScheduler", inputs.SD)
    images = changed("a cat", **FEW).images
    changed.scheduler = eps
    assert np.abs(changed("a cat", **FEW).images - images).max() > 1e-2


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"ip_adapter_image": 1}, "ip_adapter_image"),
        ({"cross_attention_kwargs": {"scale": 1.0}}, "cross_attention_kwargs"),
        ({"output_type": "jpg"}, "output_type"),
        ({"callback_on_step_end_tensor_inputs": ["mask"]}, "callback_on_step_end_tensor_inputs"),
        ({"callback_on_step_end": 3}, "callback_on_step_end"),
        ({"callback": 3}, "callback"),
        ({"callback": print, "callback_steps": 0}, "callback_steps"),
        ({"timesteps": [500, 100]}, "timesteps"),  # PNDMScheduler takes none
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"height": 63}, "height"),
        (
            {"negative_prompt": "x", "negative_prompt_embeds": np.zeros((1, 77, 32))},
            "negative_prompt_embeds",
        ),
    ],
)
def test_bad_calls(pipe: Any, given: dict[str, Any], name: str) -> None:
    with pytest.raises(tx.InvalidRequestError, match=name):
        pipe("a cat", **{**FEW, **given})


def test_unknown_arguments_are_python_errors(pipe: Any) -> None:
    with pytest.raises(TypeError, match="guidence_scale"):
        pipe("a cat", guidence_scale=3)
    with pytest.raises(tx.InvalidRequestError, match="image"):
        tx.StableDiffusionImg2ImgPipeline.from_pipe(pipe)("a cat")
    with pytest.raises(tx.UnsupportedModelError, match="timestep_cond"):
        tx.LatentConsistencyModelPipeline.from_pipe(pipe)("a cat")


def test_small_things_that_programs_touch(pipe: Any) -> None:
    assert pipe.to("cpu") is pipe
    assert str(pipe.device) == "cpu"
    assert "float32" in str(pipe.dtype)
    pipe.set_progress_bar_config(disable=True)
    pipe.enable_attention_slicing()
    pipe.enable_vae_slicing()
    for place in ("cuda", np.float16):
        with pytest.raises(tx.UnsupportedParameterError, match="to"):
            pipe.to(place)
    with pytest.raises(tx.errors.EngineStateError, match="belongs to a call"):
        pipe._interrupt = True
    positive, negative = pipe.encode_prompt("a cat", "cpu", 2, True)
    assert positive.shape == negative.shape == (2, 77, 32)
    assert not hasattr(pipe, "load_lora_weights")


def test_sixteen_threads_share_it(pipe: Any) -> None:
    """Each call with its own seed, kind, scheduler and interruption; the scheduler's config is
    shared. All get what they get alone."""
    edit = tx.StableDiffusionImg2ImgPipeline.from_pipe(pipe)
    ancestral = tx.StableDiffusionPipeline.from_pipe(pipe, scheduler=EULER)
    picture = Image.fromarray(inputs.picture(1))

    def stop(call: Any, step: int, _t: Any, values: dict[str, Any]) -> dict[str, Any]:
        call._interrupt = step == 1
        return values

    def job(k: int) -> np.ndarray:
        given = {**FEW, "seed": k, "guidance_scale": 1.0 + k % 3}
        if k % 4 == 0:
            return pipe("a cat", **given).images
        if k % 4 == 1:
            return edit("a dog", picture, 0.7, **given).images
        if k % 4 == 2:
            return ancestral("a star", **given).images
        return ancestral("a star", **given, callback_on_step_end=stop).images

    alone = [job(k) for k in range(16)]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(job, [*range(16)] * 2))
    for got, expected in zip(together, alone * 2, strict=True):
        np.testing.assert_array_equal(got, expected)
