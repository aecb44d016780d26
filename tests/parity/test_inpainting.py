"""Inpainting networks with 9 channels, and `padding_mask_crop`, as diffusers has them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import textopia_fast as tx
from tests.golden import edit_inputs as inputs
from tests.support.inpainting_unet import add_mask_channels

GOLDEN = Path(__file__).parent.parent / "golden"
TOLERANCE = 3e-4  # as of the other pictures
SEEDS = [3, 2**40 + 1]
EULER = {"timestep_spacing": "trailing"}

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inpainting") / "model"
    shutil.copytree(GOLDEN / "tiny_sd", path)
    return add_mask_channels(path)


@pytest.fixture(scope="module")
def ours(directory: Path) -> tx.Pipeline:
    return tx.Pipeline.from_pretrained(directory, threads=1, precision="fp32")


def diffusers_pipeline(directory: Path, class_name: str, settings: dict[str, Any]) -> Any:
    pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    from tests.support import diffusers_ort

    return diffusers_ort.load(
        directory,
        getattr(diffusers, class_name)(**inputs.SD, **settings),
        threads=1,
        pipeline=diffusers.StableDiffusionInpaintPipeline,
    )


def generators(count: int = 2) -> list[Any]:
    import torch

    return [torch.Generator().manual_seed(seed) for seed in SEEDS[:count]]


def request(count: int = 2, **changed: Any) -> dict[str, Any]:
    return {
        "prompt": inputs.PROMPTS[:count],
        "negative_prompt": inputs.NEGATIVE[:count],
        "image": [Image.fromarray(inputs.picture(k)) for k in range(count)],
        "mask_image": [Image.fromarray(inputs.mask(k)) for k in range(count)],
        "num_inference_steps": 6,
        "height": 64,
        "width": 64,
        "output_type": "np",
        **changed,
    }


@pytest.mark.parametrize("strength", [0.6, 1.0])
@pytest.mark.parametrize("sampler", ["euler_ancestral", "ddim", "dpmpp_2m", "heun"])
def test_nine_channels(sampler: str, strength: float, ours: tx.Pipeline, directory: Path) -> None:
    class_name, settings = inputs.SCHEDULERS[sampler]
    theirs = diffusers_pipeline(directory, class_name, settings)
    options = request(strength=strength)
    expected = theirs(**options, generator=generators()).images
    out = ours(**options, seed=SEEDS, keep_unmasked=False, sampler=theirs.scheduler)
    np.testing.assert_allclose(out.images, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_one_generator(strength: float, ours: tx.Pipeline, directory: Path) -> None:
    """It draws in diffusers' order, and stands where theirs does afterwards."""
    torch = pytest.importorskip("torch")
    theirs = diffusers_pipeline(directory, "EulerAncestralDiscreteScheduler", EULER)
    options = request(strength=strength)
    first, second = (torch.Generator().manual_seed(4) for _ in range(2))
    expected = theirs(**options, generator=first).images
    options |= {"sampler": theirs.scheduler, "generator": second, "keep_unmasked": False}
    np.testing.assert_allclose(ours(**options).images, expected, rtol=0, atol=TOLERANCE)
    assert torch.equal(first.get_state(), second.get_state())


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_given_masked_latents(strength: float, ours: tx.Pipeline, directory: Path) -> None:
    theirs = diffusers_pipeline(directory, "EulerDiscreteScheduler", EULER)
    import torch

    masked = np.random.default_rng(1).standard_normal((2, 4, 8, 8), np.float32)
    options = request(strength=strength)
    expected = theirs(
        **options, masked_image_latents=torch.from_numpy(masked), generator=generators()
    ).images
    options |= {"masked_image_latents": masked, "sampler": theirs.scheduler}
    out = ours(**options, seed=SEEDS, keep_unmasked=False)
    np.testing.assert_allclose(out.images, expected, rtol=0, atol=TOLERANCE)


# Regions wider and taller than the painted size, touching borders, with bars to be filled.
CROPS = [
    ((20, 30, 60, 50), 0, 4),
    ((2, 3, 12, 70), 9, 4),
    ((60, 5, 95, 20), 0, 4),
    ((0, 40, 96, 60), 9, 4),
    ((30, 20, 70, 40), 9, 9),
]


@pytest.mark.parametrize(("box", "padding", "channels"), CROPS)
def test_padding_mask_crop(
    box: tuple[int, int, int, int], padding: int, channels: int, ours: tx.Pipeline, directory: Path
) -> None:
    path = directory if channels == 9 else GOLDEN / "tiny_sd"
    pipe = ours if channels == 9 else tx.Pipeline.from_pretrained(path, threads=1, precision="fp32")
    theirs = diffusers_pipeline(path, "EulerDiscreteScheduler", EULER)
    picture = Image.fromarray(inputs.picture(0, 72, 96))
    mask = Image.new("L", picture.size, 0)
    mask.paste(255, box)
    options = request(1, image=picture, mask_image=mask, num_inference_steps=2, output_type="pil")
    options |= {"padding_mask_crop": padding, "strength": 0.9}
    (expected,) = theirs(**options, generator=generators(1)).images
    (got,) = pipe(**options, seed=SEEDS[:1], sampler=theirs.scheduler).images
    assert got.size == picture.size
    # one step of eight bits, where the two round to different sides
    assert np.abs(np.asarray(got, int) - np.asarray(expected, int)).max() <= 1
    outside = np.asarray(mask) == 0
    np.testing.assert_array_equal(np.asarray(got)[outside], np.asarray(picture)[outside])


def test_the_mask_is_seen(ours: tx.Pipeline) -> None:
    """Without a comparison: what is masked, and the picture outside, decide what is painted."""
    options = request(1, seed=1, output_type="latent")
    first = ours(**options).images
    other_mask = ours(**{**options, "mask_image": [Image.fromarray(inputs.mask(1))]}).images
    other_picture = ours(**{**options, "image": [Image.fromarray(inputs.picture(1))]}).images
    np.testing.assert_array_equal(ours(**options).images, first)
    assert np.abs(first - other_mask).max() > 1e-3
    assert np.abs(first - other_picture).max() > 1e-3


def test_an_image_does_not_depend_on_the_batch(ours: tx.Pipeline) -> None:
    pair = ours(**request(2), seed=7).images
    alone = [
        ours(
            **{k: v[j : j + 1] if isinstance(v, list) else v for k, v in request(2).items()},
            seed=7 + j,
        ).images[0]
        for j in range(2)
    ]
    np.testing.assert_array_equal(pair, np.stack(alone))


def test_weights_beside_the_graph(directory: Path, ours: tx.Pipeline, tmp_path: Path) -> None:
    import onnx

    copy = tmp_path / "model"
    shutil.copytree(directory, copy)
    graph = copy / "unet" / "model.onnx"
    onnx.save(
        onnx.load(graph),
        graph,
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=0,
    )
    assert (copy / "unet" / "model.onnx_data").exists()
    pipe = tx.Pipeline.from_pretrained(copy, threads=1, precision="fp32")
    np.testing.assert_array_equal(
        pipe(**request(1), seed=1).images, ours(**request(1), seed=1).images
    )


def test_refusals(ours: tx.Pipeline) -> None:
    picture, mask = Image.fromarray(inputs.picture(0)), Image.fromarray(inputs.mask(0))
    with pytest.raises(tx.UnsupportedModelError, match="mask_image: none was given"):
        ours("a cat", seed=1)
    with pytest.raises(tx.UnsupportedModelError, match="mask_image: none was given"):
        ours("a cat", image=picture, seed=1)
    bad: list[tuple[dict[str, Any], str]] = [
        ({"masked_image_latents": np.zeros((1, 4, 4, 4), np.float32)}, "masked_image_latents"),
        ({"padding_mask_crop": -1, "output_type": "pil"}, "padding_mask_crop"),
        ({"padding_mask_crop": 4}, "output_type"),
        ({"padding_mask_crop": 4, "output_type": "pil", "image": [picture]}, "image"),
    ]
    for changes, name in bad:
        with pytest.raises(tx.InvalidRequestError, match=name):
            ours(**{**request(1, image=picture, mask_image=mask), **changes})
    empty = Image.new("L", picture.size, 0)
    crop = {"padding_mask_crop": 4, "output_type": "pil", "image": picture}
    with pytest.raises(tx.InputImageError, match="nothing is masked"):
        ours(**request(1, mask_image=empty, **crop))
    with pytest.raises(tx.InputImageError, match="those of the image"):
        ours(**request(1, mask_image=empty.resize((8, 8)), **crop))
    with pytest.raises(tx.InvalidRequestError, match="masked_image_latents"):
        ours("a cat", masked_image_latents=np.zeros((1, 4, 8, 8)))
