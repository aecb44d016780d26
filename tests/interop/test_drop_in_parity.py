"""Pipelines under diffusers' names draw what diffusers draws, call back when it calls back."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import textopia_fast as tx
from tests.golden import edit_inputs as inputs
from tests.support.tiny_directory import build_tiny_directory

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from tests.support import diffusers_ort  # noqa: E402 - needs torch and diffusers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

DIRECTORY = Path(__file__).parent.parent / "golden" / "tiny_sd"
TOLERANCE = 3e-4  # another order of float32 operations, and sigmas in float64
LIKE_THEIRS = {"threads": 1, "torch_dtype": torch.float32}
SEEDS = [3, 11]
NAMES = [
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
]
SCHEDULERS = {
    **inputs.SCHEDULERS,
    "plms": ("PNDMScheduler", {"skip_prk_steps": True, "steps_offset": 1}),
    "dpm_2_ancestral": ("KDPM2AncestralDiscreteScheduler", {}),
    "lms": ("LMSDiscreteScheduler", {}),
    "lcm": ("LCMScheduler", {}),
}


def scheduler_of(sampler: str) -> Any:
    class_name, settings = SCHEDULERS[sampler]
    return getattr(theirs, class_name)(**inputs.SD, **settings)


@pytest.fixture(scope="module")
def both() -> Callable[[str, str], tuple[Any, Any]]:
    """(diffusers' pipeline, ours) of a class with the scheduler of a sampler."""
    opened: dict[str, tuple[Any, Any]] = {}

    def get(name: str, sampler: str) -> tuple[Any, Any]:
        scheduler = scheduler_of(sampler)
        if name not in opened:
            expected = diffusers_ort.load(DIRECTORY, scheduler, 1, getattr(theirs, name))
            ours = getattr(tx, name).from_pretrained(DIRECTORY, **LIKE_THEIRS)
            opened[name] = (expected, ours)
        expected, ours = opened[name]
        expected.scheduler = ours.scheduler = scheduler
        return expected, ours

    return get


def arguments(name: str, **changed: Any) -> dict[str, Any]:
    given = {
        "prompt": inputs.PROMPTS,
        "negative_prompt": inputs.NEGATIVE,
        "num_inference_steps": 5,
        "output_type": "np",
    }
    if name != NAMES[0]:
        given["image"] = [Image.fromarray(inputs.picture(k)) for k in range(2)]
        given["strength"] = 0.8
    if name == NAMES[2]:
        given["mask_image"] = [Image.fromarray(inputs.mask(k)) for k in range(2)]
    return {**given, **changed}


def draw(pair: tuple[Any, Any], *args: Any, **given: Any) -> tuple[np.ndarray, np.ndarray]:
    expected, ours = pair
    generators = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    with torch.no_grad():
        images = expected(*args, **given, generator=generators).images
    return np.asarray(images), np.asarray(ours(*args, **given, seed=SEEDS).images)


@pytest.mark.parametrize("name", [*NAMES, "LatentConsistencyModelPipeline"])
def test_signature(name: str) -> None:
    """Same parameters, order and defaults; what we add can only be given by name."""
    expected = list(inspect.signature(getattr(theirs, name).__call__).parameters.values())
    got = inspect.signature(getattr(tx, name).__call__).parameters
    assert expected.pop().kind is inspect.Parameter.VAR_KEYWORD
    assert [(p.name, p.default) for p in expected] == [
        (p.name, p.default) for p in got.values() if p.kind is not inspect.Parameter.KEYWORD_ONLY
    ]


CASES = [(name, sampler) for name in NAMES for sampler in ("euler_ancestral", "ddim", "heun")]
CASES += [(NAMES[0], sampler) for sampler in ("plms", "dpm_2_ancestral", "lms", "dpmpp_2m", "lcm")]


@pytest.mark.parametrize(("name", "sampler"), CASES)
def test_same_pictures(name: str, sampler: str, both: Any) -> None:
    expected, got = draw(both(name, sampler), **arguments(name))
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("class_name", ["PNDMScheduler", "DDIMScheduler", "EulerDiscreteScheduler"])
def test_old_configs_are_corrected(name: str, class_name: str) -> None:
    """diffusers changes settings that the first exports of Stable Diffusion had wrong, in the
    scheduler that a pipeline is made with and not in one that it is given later."""
    settings: dict[str, Any] = {"timestep_spacing": "leading"}
    if class_name == "PNDMScheduler" and name == NAMES[1]:
        settings["skip_prk_steps"] = True  # Runge-Kutta steps cannot begin in the middle
    first, second = (getattr(theirs, class_name)(**inputs.SD, **settings) for _ in range(2))
    pair = (
        diffusers_ort.load(DIRECTORY, first, 1, getattr(theirs, name)),
        getattr(tx, name).from_pretrained(DIRECTORY, **LIKE_THEIRS, scheduler=second),
    )
    for key in ("steps_offset", "clip_sample", "skip_prk_steps"):
        assert pair[1].scheduler.config.get(key) == pair[0].scheduler.config.get(key)
    expected, got = draw(pair, **arguments(name))
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)
    if class_name == "PNDMScheduler":
        settings["skip_prk_steps"] = True
    for pipe in pair:
        pipe.scheduler = getattr(theirs, class_name)(**inputs.SD, **settings)
    expected, got = draw(pair, **arguments(name))
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)


def test_positional_arguments(both: Any) -> None:
    expected, got = draw(both(NAMES[0], "euler"), inputs.PROMPTS, 48, 80, 3, output_type="np")
    assert got.shape == (2, 48, 80, 3)
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("sampler", ["euler_ancestral", "ddim"])
def test_generators(name: str, count: int, sampler: str, both: Any) -> None:
    """One for the batch or one per image: the pictures of diffusers, and its state afterwards."""
    images, states = [], []
    for pipe in both(name, sampler):
        generators = [torch.Generator().manual_seed(seed) for seed in SEEDS[:count]]
        given = generators if count > 1 else generators[0]
        with torch.no_grad():
            images.append(pipe(**arguments(name), eta=0.3, generator=given).images)
        states.append([generator.get_state() for generator in generators])
    np.testing.assert_allclose(images[1], images[0], rtol=0, atol=TOLERANCE)
    for got, expected in zip(states[1], states[0], strict=True):
        assert torch.equal(got, expected)


@pytest.mark.parametrize("output_type", ["pt", "latent"])
def test_tensors_come_out(output_type: str, both: Any) -> None:
    pair = both(NAMES[0], "euler")
    expected, got = draw(pair, **arguments(NAMES[0], output_type=output_type))
    assert isinstance(pair[1](**arguments(NAMES[0], output_type=output_type))[0], torch.Tensor)
    np.testing.assert_allclose(got, expected, rtol=0, atol=5e-4)


def test_embeddings_of_encode_prompt(both: Any) -> None:
    expected, ours = both(NAMES[0], "euler")
    call = (inputs.PROMPTS, "cpu", 2, True, inputs.NEGATIVE)
    with torch.no_grad():
        wanted = expected.encode_prompt(*call)
    got = ours.encode_prompt(*call)
    for a, b in zip(got, wanted, strict=True):
        assert isinstance(a, torch.Tensor)
        torch.testing.assert_close(a, b)
    embeds = {"prompt_embeds": got[0], "negative_prompt_embeds": got[1]}
    images = ours(**embeds, num_inference_steps=2, seed=1, output_type="np").images
    text = {"prompt": inputs.PROMPTS, "negative_prompt": inputs.NEGATIVE}
    again = ours(**text, num_images_per_prompt=2, num_inference_steps=2, seed=1, output_type="np")
    np.testing.assert_array_equal(images, again.images)


# --- callbacks


def record(change: Callable[..., None], log: list[Any]) -> Callable[..., dict[str, Any]]:
    def callback(pipe: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        seen = {k: np.array(v) for k, v in values.items() if v is not None}
        log.append((step, float(timestep), pipe.num_timesteps, pipe.guidance_scale, seen))
        change(pipe, step, values)
        return values

    return callback


def nothing(_pipe: Any, _step: int, _values: dict[str, Any]) -> None:
    pass


def dim(_pipe: Any, step: int, values: dict[str, Any]) -> None:
    values["latents"] = values["latents"] * (0.9 if step == 1 else 1.0)


def dim_in_place(_pipe: Any, step: int, values: dict[str, Any]) -> None:
    values["latents"] *= 0.9 if step == 1 else 1.0


def other_prompt(_pipe: Any, step: int, values: dict[str, Any]) -> None:
    if step == 1:
        values["prompt_embeds"] = values["prompt_embeds"].roll(1, dims=1)


def no_guidance(pipe: Any, step: int, values: dict[str, Any]) -> None:
    if step == 1:
        pipe._guidance_scale = 0.0
        values["prompt_embeds"] = values["prompt_embeds"][2:]


def more_guidance(pipe: Any, step: int, _values: dict[str, Any]) -> None:
    pipe._guidance_scale = 3.0 + step


def interrupt(pipe: Any, step: int, _values: dict[str, Any]) -> None:
    pipe._interrupt = step == 2


def paint_everything(_pipe: Any, step: int, values: dict[str, Any]) -> None:
    if step == 1 and "mask" in values:
        values["mask"] = torch.ones_like(values["mask"])


CHANGES = (nothing, dim, dim_in_place, other_prompt, no_guidance, more_guidance, interrupt)
CHANGED = [(NAMES[0], "heun", change) for change in CHANGES]
CHANGED += [(NAMES[0], sampler, dim) for sampler in ("plms", "ddim", "dpmpp_2m", "lms", "lcm")]
CHANGED += [(NAMES[0], sampler, interrupt) for sampler in ("ddim", "dpmpp_2m")]
CHANGED += [(NAMES[0], "ddim", no_guidance), (NAMES[1], "heun", interrupt)]
CHANGED += [(NAMES[2], "ddim", change) for change in (dim, paint_everything)]


@pytest.mark.parametrize(("name", "sampler", "change"), CHANGED)
def test_callback_on_step_end(name: str, sampler: str, change: Any, both: Any) -> None:
    pair = both(name, sampler)
    names = list(getattr(tx, name)._callback_tensor_inputs)
    assert names == getattr(theirs, name)._callback_tensor_inputs
    logs: list[list[Any]] = [[], []]
    images = []
    for pipe, log in zip(pair, logs, strict=True):
        given = arguments(
            name,
            callback_on_step_end=record(change, log),
            callback_on_step_end_tensor_inputs=names,
        )
        if pipe is pair[0]:
            given["generator"] = [torch.Generator().manual_seed(seed) for seed in SEEDS]
        else:
            given["seed"] = SEEDS
        with torch.no_grad():
            images.append(pipe(**given).images)
    assert len(logs[0]) == len(logs[1]) > 2
    for wanted, got in zip(*logs, strict=True):
        assert got[0] == wanted[0]
        np.testing.assert_allclose(got[1:4], wanted[1:4], rtol=1e-6)
        assert got[4].keys() == wanted[4].keys()
        for key, value in wanted[4].items():
            scale = max(1.0, float(np.abs(value).max()))
            np.testing.assert_allclose(got[4][key], value, rtol=0, atol=TOLERANCE * scale)
    np.testing.assert_allclose(images[1], images[0], rtol=0, atol=TOLERANCE)


def test_official_callback_object(both: Any) -> None:
    from diffusers.callbacks import SDCFGCutoffCallback

    pair = both(NAMES[0], "dpmpp_2m")
    expected, ours = pair
    given = {"prompt": "a cat", "num_inference_steps": 6, "output_type": "np"}
    given["callback_on_step_end"] = SDCFGCutoffCallback(cutoff_step_ratio=0.5)
    wanted = expected(**given, generator=torch.Generator().manual_seed(5)).images
    got = ours(**given, seed=5).images
    np.testing.assert_allclose(got, wanted, rtol=0, atol=TOLERANCE)
    plain = ours(**{**given, "callback_on_step_end": None}, seed=5).images
    assert np.abs(got - plain).max() > 1e-3


@pytest.mark.parametrize("sampler", ["heun", "ddim"])
def test_old_callback(sampler: str, both: Any) -> None:
    logs: list[list[Any]] = [[], []]
    for pipe, log in zip(both(NAMES[0], sampler), logs, strict=True):
        seed = {"seed": 5} if log is logs[1] else {"generator": torch.Generator().manual_seed(5)}
        pipe(
            "a cat",
            num_inference_steps=5,
            callback=lambda step, timestep, latents, log=log: log.append(
                (step, float(timestep), latents.numpy().copy())
            ),
            callback_steps=2,
            **seed,
        )
    assert [entry[0] for entry in logs[1]] == [entry[0] for entry in logs[0]]
    for wanted, got in zip(*logs, strict=True):
        np.testing.assert_allclose(got[1], wanted[1], rtol=1e-6)
        np.testing.assert_allclose(got[2], wanted[2], rtol=0, atol=TOLERANCE)


# --- networks distilled with their guidance


@pytest.fixture(scope="module")
def lcm_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_directory(
        tmp_path_factory.mktemp("lcm") / "model",
        time_cond_proj_dim=32,
        scheduler="LCMScheduler",
        class_name="LatentConsistencyModelPipeline",
    )


@pytest.mark.parametrize("original", [None, 20])
def test_latent_consistency_model(original: int | None, lcm_directory: Path) -> None:
    name = "LatentConsistencyModelPipeline"
    scheduler = theirs.LCMScheduler.from_pretrained(lcm_directory, subfolder="scheduler")
    expected = diffusers_ort.load(lcm_directory, scheduler, 1, getattr(theirs, name))
    ours = getattr(tx, name).from_pretrained(lcm_directory, **LIKE_THEIRS)
    given = {"prompt": inputs.PROMPTS, "original_inference_steps": original, "output_type": "np"}
    logs: list[list[Any]] = [[], []]
    names = ["latents", "prompt_embeds", "w_embedding"]
    images = []
    for pipe, log in zip((expected, ours), logs, strict=True):
        watched = {
            "callback_on_step_end": record(nothing, log),
            "callback_on_step_end_tensor_inputs": names,
        }
        seed: dict[str, Any] = {"seed": SEEDS}
        if pipe is expected:
            seed = {"generator": [torch.Generator().manual_seed(s) for s in SEEDS]}
        images.append(pipe(**given, **watched, **seed).images)
    for wanted, got in zip(*logs, strict=True):
        np.testing.assert_allclose(got[1:4], wanted[1:4], rtol=1e-6)
        np.testing.assert_allclose(got[4]["w_embedding"], wanted[4]["w_embedding"], atol=1e-3)
        np.testing.assert_allclose(got[4]["latents"], wanted[4]["latents"], atol=1e-3)
    np.testing.assert_allclose(images[1], images[0], rtol=0, atol=TOLERANCE)
