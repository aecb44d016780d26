"""Image-to-image and inpainting: what a request means, what is refused, and what never changes."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import textopia_fast as tx
from tests.golden.edit_inputs import mask, picture
from tests.support.tiny_directory import build_tiny_directory
from textopia_fast.engines import GraphSource

TINY_SD = Path(__file__).parent / "golden" / "tiny_sd"
FAST: dict[str, Any] = {"num_inference_steps": 6, "sampler": "ddpm", "output_type": "np"}
IMAGE = Image.fromarray(picture(0))


@pytest.fixture(scope="module")
def pipe() -> tx.Pipeline:
    return tx.Pipeline.from_pretrained(TINY_SD, threads=1)


def images_of(pipe: tx.Pipeline, prompt: Any = "a cat", **options: Any) -> np.ndarray:
    return pipe(prompt, **{**FAST, "image": IMAGE, "seed": 1, **options}).images


def test_the_size_is_the_pictures(pipe: tx.Pipeline) -> None:
    assert images_of(pipe, image=picture(0, 39, 83)).shape == (1, 32, 80, 3)
    assert images_of(pipe, image=picture(0, 39, 83), height=64).shape == (1, 64, 80, 3)


def test_every_image_of_a_batch_is_the_image_made_alone(pipe: tx.Pipeline) -> None:
    prompts = ["a cat", "a dog"]
    pictures = [Image.fromarray(picture(k)) for k in range(4)]
    options = {"num_images_per_prompt": 2, "seed": 30}
    one = images_of(pipe, prompts, **options)
    per_prompt = images_of(pipe, prompts, image=pictures[:2], **options)
    per_image = images_of(pipe, prompts, image=pictures, **options)
    for k in range(4):
        alone = {"prompt": prompts[k // 2], "seed": 30 + k}
        np.testing.assert_array_equal(one[k], images_of(pipe, **alone)[0])
        expected = images_of(pipe, image=pictures[k // 2], **alone)[0]
        np.testing.assert_array_equal(per_prompt[k], expected)
        expected = images_of(pipe, image=pictures[k], **alone)[0]
        np.testing.assert_array_equal(per_image[k], expected)


def test_strength_is_how_many_steps_run(pipe: tx.Pipeline) -> None:
    for strength, steps in ((0.2, 1), (0.5, 3), (0.99, 5), (1, 6), (1.0, 6), (None, 4)):
        counter = tx.Progress()
        out = pipe("a cat", **FAST, image=IMAGE, strength=strength, seed=1, progress=counter)
        assert counter.steps_done == steps
        assert out.parameters["strength"] == (0.8 if strength is None else strength)
        assert set(out.timings) == {
            "text_encoder",
            "vae_encoder",
            "denoise",
            "vae_decoder",
            "total",
        }


def test_less_strength_stays_nearer_to_the_picture(pipe: tx.Pipeline) -> None:
    shown = {"sampler": "ddim", "num_inference_steps": 20, "output_type": "latent"}
    whole = images_of(pipe, strength=1.0, **shown)
    little, more = (images_of(pipe, strength=s, **shown) for s in (0.05, 0.5))
    start = images_of(pipe, strength=1.0, **{**shown, "sigmas": [1e-4, 0]})
    distances = [np.abs(latents - start).mean() for latents in (little, more, whole)]
    assert distances == sorted(distances)


def test_noise_of_the_callers_own(pipe: tx.Pipeline) -> None:
    first, second = (np.zeros((1, 4, 8, 8), np.float32) + k for k in (0, 1))
    assert not np.array_equal(images_of(pipe, latents=first), images_of(pipe, latents=second))


def test_a_graph_that_samples_itself(tmp_path: Path) -> None:
    model = build_tiny_directory(tmp_path / "model", encoder_output="latent_sample")
    with tx.Pipeline.from_pretrained(model) as own:
        image = np.random.default_rng(0).random((48, 40, 3))
        found = images_of(own, image=image, num_images_per_prompt=2)
    assert found.shape == (2, 48, 40, 3)


def test_half_precision_graphs(tmp_path: Path) -> None:
    with tx.Pipeline.from_pretrained(build_tiny_directory(tmp_path / "m", half=True)) as half:
        assert np.isfinite(images_of(half)).all()


def test_a_model_without_encoder(tmp_path: Path) -> None:
    model = build_tiny_directory(tmp_path / "model", encoder_output=None)
    own = tx.Pipeline.from_pretrained(model)
    with pytest.raises(tx.UnsupportedModelError, match="vae_encoder"):
        images_of(own)


def test_an_encoder_of_another_model(tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(TINY_SD, model)
    shutil.copy(model / "vae_decoder" / "config.json", model / "vae_encoder" / "config.json")
    other = build_tiny_directory(tmp_path / "other", encoder_output="latent_sample")
    shutil.copy(other / "vae_encoder" / "model.onnx", model / "vae_encoder" / "model.onnx")
    with tx.Pipeline.from_pretrained(model) as own:
        found = images_of(own, output_type="latent")
    assert found.shape == (1, 4, 8, 8)


def test_the_encoder_is_opened_once_by_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    make = GraphSource.open

    def record(source: GraphSource, part: str, *given: Any, **options: Any) -> Any:
        opened.append(part)
        return make(source, part, *given, **options)

    monkeypatch.setattr(GraphSource, "open", record)
    pipeline = tx.Pipeline.from_pretrained(TINY_SD, threads=1)
    assert "vae_encoder" not in opened
    found: dict[int, np.ndarray] = {}
    gate = threading.Barrier(4)

    def work(seed: int) -> None:
        gate.wait()
        found[seed] = images_of(pipeline, seed=seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opened.count("vae_encoder") == 1
    for seed, image in found.items():
        np.testing.assert_array_equal(image, images_of(pipeline, seed=seed))


@pytest.mark.parametrize("strength", [0, 0.0, -0.1, 1.01, float("nan"), "0.5", True, 0.1])
def test_bad_strength(pipe: tx.Pipeline, strength: Any) -> None:
    with pytest.raises(tx.InvalidRequestError, match="strength"):
        images_of(pipe, strength=strength)


def test_strength_without_a_picture(pipe: tx.Pipeline) -> None:
    with pytest.raises(tx.InvalidRequestError, match="without an image"):
        pipe("a cat", **FAST, strength=0.5)


def test_a_number_of_pictures_that_fits_nothing(pipe: tx.Pipeline) -> None:
    with pytest.raises(tx.InputImageError, match="3 pictures for 2 prompts and 4 images"):
        images_of(pipe, ["a", "b"], image=[IMAGE] * 3, num_images_per_prompt=2)


@pytest.mark.parametrize("image", ["a.png", 3, [], np.zeros((4, 4, 3)), Image.new("I", (64, 64))])
def test_bad_pictures(pipe: tx.Pipeline, image: Any) -> None:
    with pytest.raises(tx.InputImageError, match="image"):
        images_of(pipe, image=image)


def test_cancelled_while_it_encodes(pipe: tx.Pipeline) -> None:
    token = tx.CancelToken()
    token.cancel()
    with pytest.raises(tx.GenerationCancelled):
        images_of(pipe, cancel=token)


# --- inpainting ---------------------------------------------------------------------------------

MASK = Image.fromarray(mask(0))
MASKED = mask(0) >= 128


@pytest.mark.parametrize("sampler", ["ddpm", "dpmpp_2m", "heun", "ddim"])
@pytest.mark.parametrize("strength", [None, 0.4])
def test_unmasked_pixels_are_the_inputs(
    pipe: tx.Pipeline, sampler: str, strength: float | None
) -> None:
    options = {"mask_image": MASK, "sampler": sampler, "strength": strength}
    (shown,) = images_of(pipe, output_type="pil", **options)
    painted = np.asarray(shown)
    np.testing.assert_array_equal(painted[~MASKED], picture(0)[~MASKED])
    assert np.abs(painted[MASKED].astype(int) - picture(0)[MASKED]).mean() > 2
    plain = images_of(pipe, keep_unmasked=False, **options)
    # the VAE changes what it encodes and decodes, and never to the bit back
    assert not np.array_equal((255 * plain[0]).round()[~MASKED], picture(0)[~MASKED])
    kept = images_of(pipe, **options)
    np.testing.assert_array_equal(kept[0][MASKED], plain[0][MASKED])


def test_nothing_masked_is_the_input(pipe: tx.Pipeline) -> None:
    found = images_of(pipe, mask_image=np.zeros((64, 64)))
    np.testing.assert_allclose(found[0], picture(0) / 255.0, atol=2e-7)
    latents = images_of(pipe, mask_image=np.zeros((64, 64)), output_type="latent", strength=0.5)
    again = images_of(pipe, mask_image=np.zeros((64, 64)), output_type="latent", sampler="ddim")
    np.testing.assert_array_equal(latents, again)  # the known latents, whatever ran


def test_all_masked_is_text_to_image_with_the_same_noise(pipe: tx.Pipeline) -> None:
    noise = tx.Noise.torch(3).randn((1, 4, 8, 8))
    options = {"sampler": "dpmpp_2m", "latents": noise}
    found = images_of(pipe, mask_image=np.ones((64, 64)), **options)
    np.testing.assert_array_equal(found, images_of(pipe, image=None, **options))


def test_the_strength_of_inpainting_is_one(pipe: tx.Pipeline) -> None:
    out = pipe("a cat", **FAST, image=IMAGE, mask_image=MASK, seed=1)
    assert out.parameters["strength"] == 1.0


def test_inpainted_images_of_a_batch_are_those_made_alone(pipe: tx.Pipeline) -> None:
    masks = [Image.fromarray(mask(k)) for k in range(2)]
    pictures = [Image.fromarray(picture(k)) for k in range(2)]
    prompts = ["a cat", "a dog"]
    batch = images_of(pipe, prompts, image=pictures, mask_image=masks, seed=5)
    one_mask = images_of(pipe, prompts, mask_image=MASK, seed=5)
    for k in range(2):
        alone = {"prompt": prompts[k], "seed": 5 + k}
        expected = images_of(pipe, image=pictures[k], mask_image=masks[k], **alone)
        np.testing.assert_array_equal(batch[k], expected[0])
        np.testing.assert_array_equal(one_mask[k], images_of(pipe, mask_image=MASK, **alone)[0])


def test_preview_and_progress_while_inpainting(pipe: tx.Pipeline) -> None:
    seen: list[np.ndarray] = []
    watched = images_of(pipe, mask_image=MASK, preview=lambda step, latents: seen.append(latents))
    assert len(seen) == FAST["num_inference_steps"]
    np.testing.assert_array_equal(watched, images_of(pipe, mask_image=MASK))


def test_masks_that_are_refused(pipe: tx.Pipeline) -> None:
    with pytest.raises(tx.InvalidRequestError, match="without an image"):
        images_of(pipe, image=None, mask_image=MASK)
    with pytest.raises(tx.InputImageError, match="mask_image: 3 pictures"):
        images_of(pipe, mask_image=[MASK] * 3, num_images_per_prompt=2)
    with pytest.raises(tx.InputImageError, match="mask_image"):
        images_of(pipe, mask_image="mask.png")
    with pytest.raises(tx.InvalidRequestError, match="keep_unmasked"):
        images_of(pipe, mask_image=MASK, keep_unmasked=None)
