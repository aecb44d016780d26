"""A caller's torch.Generator: diffusers' pictures, and the state that diffusers leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import textopia_fast as tx
from tests.golden import edit_inputs as inputs
from textopia_fast import _core, errors

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

MODEL = Path(__file__).parent.parent / "golden" / "tiny_sd"
CLASS_NAMES = {
    "text": "StableDiffusionPipeline",
    "image": "StableDiffusionImg2ImgPipeline",
    "inpaint": "StableDiffusionInpaintPipeline",
}
NO_CLIP = {"clip_sample": False}
SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "euler": ("EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "dpm_2_ancestral": ("KDPM2AncestralDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {**NO_CLIP, "set_alpha_to_one": False, "steps_offset": 1}),
    "ddim_to_one": ("DDIMScheduler", {**NO_CLIP, "steps_offset": 1}),
    "ddpm": ("DDPMScheduler", {**NO_CLIP, "steps_offset": 1}),
    "ddpm_to_0": ("DDPMScheduler", {**NO_CLIP, "timestep_spacing": "linspace", "steps_offset": 1}),
    "dpmpp_2m_sde": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True},
    ),
    "sde_dpmsolver": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "sde-dpmsolver", "final_sigmas_type": "sigma_min"},
    ),
    "dpm_singlestep_sde": (
        "DPMSolverSinglestepScheduler",
        {"algorithm_type": "sde-dpmsolver++", "lower_order_final": True},
    ),
    "lcm": ("LCMScheduler", {}),
    "tcd": ("TCDScheduler", {}),
    "pndm": ("PNDMScheduler", {"steps_offset": 1}),
}
ETA = {"ddim": 1.0, "ddim_to_one": 0.5, "tcd": 0.3}
# Another runtime's float32 networks, and sigmas in float64; as in test_tiny_sd.py.
TOLERANCE = 3e-4

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def pipe_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tx.Pipeline]:
    made: dict[str, tx.Pipeline] = {}

    def get(sampler: str) -> tx.Pipeline:
        if sampler not in made:
            path = tmp_path_factory.mktemp("model") / "model"
            shutil.copytree(MODEL, path)
            class_name, settings = SCHEDULERS[sampler]
            config = {"_class_name": class_name, **inputs.SD, **settings}
            (path / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
            made[sampler] = tx.Pipeline.from_pretrained(path, threads=1, precision="fp32")
        return made[sampler]

    return get


@lru_cache
def loaded(kind: str) -> Any:
    from tests.support import diffusers_ort

    pipeline = getattr(diffusers, CLASS_NAMES[kind])
    scheduler = diffusers.EulerDiscreteScheduler(**inputs.SD)
    return diffusers_ort.load(MODEL, scheduler, threads=1, pipeline=pipeline)


def theirs(sampler: str, kind: str) -> Any:
    class_name, settings = SCHEDULERS[sampler]
    pipeline = loaded(kind)
    pipeline.scheduler = getattr(diffusers, class_name)(**inputs.SD, **settings)
    return pipeline


def request(kind: str, sampler: str, pictures: int = 2) -> dict[str, Any]:
    options: dict[str, Any] = {
        "prompt": inputs.PROMPTS,
        "num_inference_steps": 4,
        "guidance_scale": 1.0 if sampler == "lcm" else 3.0,
        "output_type": "np",
    }
    if sampler in ETA:
        options["eta"] = ETA[sampler]
    if kind == "text":
        return options | {"height": 64, "width": 64}
    options |= {"strength": 0.8, "image": [Image.fromarray(inputs.picture(k)) for k in (0, 1)]}
    if kind == "inpaint":
        options["mask_image"] = [Image.fromarray(inputs.mask(k)) for k in (0, 1)]
    return {k: v[:pictures] if k in ("image", "mask_image") else v for k, v in options.items()}


def generators(is_list: bool) -> list[Any]:
    """Not fresh: some numbers have been drawn, and one normal of a small draw waits."""
    made = [torch.Generator().manual_seed(seed) for seed in (3, 2**40 + 1)[: 1 + is_list]]
    for generator in made:
        torch.randn(100, generator=generator)
        torch.randn(3, generator=generator)
    return made


def check(kind: str, sampler: str, pipe: tx.Pipeline, is_list: bool, pictures: int = 2) -> None:
    options = request(kind, sampler, pictures)
    mine, other = generators(is_list), generators(is_list)
    size = {"height": 64, "width": 64} if kind == "inpaint" else {}
    expected = theirs(sampler, kind)(
        **options, **size, generator=other if is_list else other[0]
    ).images
    if kind == "inpaint":
        options["keep_unmasked"] = False
    out = pipe(**options, generator=mine if is_list else mine[0])
    np.testing.assert_allclose(out.images, expected, rtol=0, atol=TOLERANCE)
    for a, b in zip(mine, other, strict=True):
        assert torch.equal(a.get_state(), b.get_state())
    assert out.seeds == ()
    assert out.parameters["noise"] == "generator"


@pytest.mark.parametrize("is_list", [False, True], ids=["one", "list"])
@pytest.mark.parametrize("sampler", SCHEDULERS)
def test_text_to_image(sampler: str, is_list: bool, pipe_of: Callable[[str], tx.Pipeline]) -> None:
    check("text", sampler, pipe_of(sampler), is_list)


@pytest.mark.parametrize("is_list", [False, True], ids=["one", "list"])
@pytest.mark.parametrize("kind", ["image", "inpaint"])
@pytest.mark.parametrize(
    ("sampler", "pictures"), [("euler", 1), ("euler_ancestral", 2), ("dpmpp_2m_sde", 1)]
)
def test_edits(
    sampler: str, kind: str, pictures: int, is_list: bool, pipe_of: Callable[[str], tx.Pipeline]
) -> None:
    check(kind, sampler, pipe_of(sampler), is_list, pictures)


@pytest.mark.parametrize("kind", ["image", "inpaint"])
def test_one_seed_for_the_batch(kind: str, pipe_of: Callable[[str], tx.Pipeline]) -> None:
    """Noise.torch(seed) is one generator with that seed."""
    pipe, options = pipe_of("euler_ancestral"), request(kind, "euler_ancestral", 1)
    generator = torch.Generator().manual_seed(7)
    expected = pipe(**options, generator=generator).images
    np.testing.assert_array_equal(pipe(**options, noise=tx.Noise.torch(7)).images, expected)


def test_given_draws_are_for_every_image(pipe_of: Callable[[str], tx.Pipeline]) -> None:
    """Of a posterior, too, also where fewer pictures than images are given."""
    pipe, options = pipe_of("euler_ancestral"), request("inpaint", "euler_ancestral", 1)
    stream = tx.Noise.torch([3, 4]).stream(2)
    draws = np.stack([stream.draw(2, 4 * 8 * 8).reshape(2, 4, 8, 8) for _ in range(6)])
    expected = pipe(**options, seed=3).images
    got = pipe(**options, noise=tx.Noise.given(draws)).images
    np.testing.assert_array_equal(got, expected)


def test_a_second_call_goes_on(pipe_of: Callable[[str], tx.Pipeline]) -> None:
    (mine,), (other,) = generators(False), generators(False)
    pipe, options = pipe_of("euler_ancestral"), request("text", "euler_ancestral")
    reference = theirs("euler_ancestral", "text")
    first, second = (pipe(**options, generator=mine).images for _ in range(2))
    assert np.abs(first - second).max() > 0.01
    reference(**options, generator=other)
    expected = reference(**options, generator=other).images
    np.testing.assert_allclose(second, expected, rtol=0, atol=TOLERANCE)


def test_latents_of_ones_own_draw_nothing(pipe_of: Callable[[str], tx.Pipeline]) -> None:
    (mine,), (other,) = generators(False), generators(False)
    latents = np.random.default_rng(0).standard_normal((2, 4, 8, 8)).astype(np.float32)
    options = request("text", "euler")
    before = mine.get_state()
    ours = pipe_of("euler")(**options, latents=latents, generator=mine).images
    expected = theirs("euler", "text")(
        **options, latents=torch.from_numpy(latents), generator=other
    ).images
    np.testing.assert_allclose(ours, expected, rtol=0, atol=TOLERANCE)
    assert torch.equal(mine.get_state(), before)


def test_a_cancelled_run_has_drawn_what_it_used(pipe_of: Callable[[str], tx.Pipeline]) -> None:
    (mine,), (other,) = generators(False), generators(False)
    cancel = tx.CancelToken()

    def progress(step: int, total: int) -> None:
        if step == 2:
            cancel.cancel()

    with pytest.raises(errors.GenerationCancelled):
        pipe_of("euler_ancestral")(
            **request("text", "euler_ancestral"), generator=mine, cancel=cancel, progress=progress
        )
    for _ in range(3):  # the start and two steps
        torch.randn((2, 4, 8, 8), generator=other)
    assert torch.equal(mine.get_state(), other.get_state())


def test_a_generator_for_two_images_takes_turns() -> None:
    (mine,), (other,) = generators(False), generators(False)
    noise = tx.Noise.from_generator([mine, mine])
    expected = torch.cat([torch.randn((1, 4, 5, 3), generator=other) for _ in range(2)])
    assert noise.randn((2, 4, 5, 3)).tobytes() == expected.numpy().tobytes()
    assert torch.equal(mine.get_state(), other.get_state())


def test_states_after_draws_of_every_size() -> None:
    rng = np.random.default_rng(1)
    sizes = [1, 3, 15, 16, 17, 100, 623, 624, 625, 1248, 2495, 2496, 2497, 5000]
    for seed in (0, 7, 2**63):
        generator = torch.Generator().manual_seed(seed)
        stream = _core.CallerStream.torch_states([generator.get_state().numpy().tobytes()], [])
        assert stream.states()[0] == generator.get_state().numpy().tobytes()
        for size in rng.permutation(sizes * 2):
            expected = torch.randn(int(size), generator=generator)
            assert stream.draw(1, int(size)).tobytes() == expected.numpy().tobytes()
            assert stream.states()[0] == generator.get_state().numpy().tobytes(), size
