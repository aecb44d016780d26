"""Unmodified diffusers pipelines draw the same pictures with our schedulers in them."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from tests.golden.sampler_cases import SD
from tests.interop.test_schedulers import TABLED
from textopia_fast.interop import diffusers as ours
from textopia_fast.schedulers.classes import CLASSES

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

# diffusers' own notices, and torch and NumPy disagree on the spelling of their array protocol.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

PROMPTS = ["a red circle on a blue background", "a painting of a small boat, night"]
# Float32 throughout; their sigmas are float32 where ours are float64.
TOLERANCE = 1e-3
OPTIONS: list[dict[str, Any]] = [
    {},
    {"timestep_spacing": "trailing"},
    {"timestep_spacing": "linspace", "steps_offset": 0},
    {"use_karras_sigmas": True},
    {"use_exponential_sigmas": True, "timestep_spacing": "linspace"},
    {"final_sigmas_type": "sigma_min"},
    {"prediction_type": "v_prediction"},
]
EACH = [
    (name, options)
    for name in TABLED
    for options in OPTIONS
    if set(options) <= set(CLASSES[name].defaults)
]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    """The networks are so small that threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Any:
    """Stable Diffusion with small random networks."""
    from transformers import CLIPTokenizer

    from tests.golden.make_tiny_sd import random_networks, spread_pictures, write_tokenizer

    folder = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text, unet, vae = random_networks(write_tokenizer(folder))
        spread_pictures(vae)
        scheduler = theirs.PNDMScheduler(**SD, skip_prk_steps=True, steps_offset=1)
        scheduler.register_to_config(clip_sample=False)
        made = theirs.StableDiffusionPipeline(
            vae,
            text,
            CLIPTokenizer.from_pretrained(folder),
            unet,
            scheduler,
            None,
            None,
            requires_safety_checker=False,
        )
    made.set_progress_bar_config(disable=True)
    return made


def draw(pipe: Any, **changed: Any) -> np.ndarray:
    generators = [torch.Generator().manual_seed(seed) for seed in (7, 8)]
    values = {
        "num_inference_steps": 4,
        "guidance_scale": 6.0,
        "negative_prompt": ["blurry dark", "photo"],
        "generator": generators,
        "output_type": "np",
        **changed,
    }
    with torch.no_grad():
        return pipe(PROMPTS, **values).images


def swapped(pipe: Any, module: Any, name: str, base: Any, options: dict[str, Any]) -> Any:
    if name == "LMSDiscreteScheduler":
        pytest.importorskip("scipy", reason="diffusers needs SciPy for this class")
    pipe.scheduler = getattr(module, name).from_config(base, **options)
    return pipe


@pytest.fixture
def base(pipe: Any) -> Any:
    before = pipe.scheduler
    yield before.config
    pipe.scheduler = before


@pytest.mark.parametrize(("name", "options"), EACH)
def test_same_pictures(pipe: Any, base: Any, name: str, options: dict[str, Any]) -> None:
    call = {"eta": 0.6} if name == "DDIMScheduler" else {}
    expected = draw(swapped(pipe, theirs, name, base, options), **call)
    got = draw(swapped(pipe, ours, name, base, options), **call)
    assert np.abs(got - expected).max() < TOLERANCE
    assert got.std() > 0.05


# These two do not start in the middle as diffusers' do, see test_schedulers.py.
APART = ("PNDMScheduler", "LMSDiscreteScheduler")


@pytest.mark.parametrize("name", [name for name in TABLED if name not in APART])
def test_same_pictures_from_a_picture(pipe: Any, base: Any, name: str) -> None:
    image_to_image = theirs.StableDiffusionImg2ImgPipeline(**pipe.components)
    image_to_image.set_progress_bar_config(disable=True)
    picture = np.random.default_rng(2).random((2, 64, 64, 3), np.float32)
    images = []
    for module in (theirs, ours):
        swapped(image_to_image, module, name, base, {})
        images.append(draw(image_to_image, image=picture, strength=0.6, num_inference_steps=9))
    assert np.abs(images[0] - images[1]).max() < TOLERANCE


@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_same_pictures_around_a_mask(pipe: Any, base: Any, name: str) -> None:
    inpaint = theirs.StableDiffusionInpaintPipeline(**pipe.components)
    inpaint.set_progress_bar_config(disable=True)
    picture = np.random.default_rng(2).random((2, 64, 64, 3), np.float32)
    mask = np.zeros((2, 64, 64, 1), np.float32)
    mask[:, 20:50, 10:40] = 1.0
    images = []
    for module in (theirs, ours):
        swapped(inpaint, module, name, base, {})
        given = {"image": torch.from_numpy(picture).permute(0, 3, 1, 2) * 2 - 1}
        given["mask_image"] = torch.from_numpy(mask).permute(0, 3, 1, 2)
        images.append(draw(inpaint, strength=0.8, height=64, width=64, **given))
    assert np.abs(images[0] - images[1]).max() < TOLERANCE


def test_a_callback_may_change_the_latents(pipe: Any, base: Any) -> None:
    def dim(_pipe: Any, step: int, _timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        return {"latents": values["latents"] * (0.9 if step == 2 else 1.0)}

    images = [
        draw(
            swapped(pipe, module, "DPMSolverMultistepScheduler", base, {}),
            callback_on_step_end=dim,
        )
        for module in (theirs, ours)
    ]
    assert np.abs(images[0] - images[1]).max() < TOLERANCE


def test_a_pipeline_is_saved_and_loaded_with_our_scheduler(
    pipe: Any, base: Any, tmp_path: Any
) -> None:
    swapped(pipe, ours, "EulerDiscreteScheduler", base, {})
    expected = draw(pipe)
    pipe.save_pretrained(tmp_path)
    again = theirs.StableDiffusionPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert type(again.scheduler) is ours.EulerDiscreteScheduler
    # Loading replaces the plain attention by the fused one, which rounds in another order.
    np.testing.assert_allclose(draw(again), expected, atol=1e-4)
    other = theirs.StableDiffusionPipeline.from_pretrained(
        tmp_path, scheduler=ours.DDIMScheduler.from_config(base)
    )
    assert type(other.scheduler) is ours.DDIMScheduler
