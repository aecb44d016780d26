"""Pipelines over compiled graphs: the same pictures at any batch and thread count, from a cache."""

from __future__ import annotations

import errno
import multiprocessing
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import textopia_fast as tx
from tests.support.inpainting_unet import add_mask_channels
from tests.support.tiny_directory import build_tiny_directory
from textopia_fast import _core
from textopia_fast.engines import find_engine
from textopia_fast.errors import ConfigurationError, OutputError, TextopiaWarning
from textopia_fast.graph import compile_directory, targets
from textopia_fast.models import open_directory
from textopia_fast.precision import Choice, choose_precision

TINY_SD = Path(__file__).parent / "golden" / "tiny_sd"
PROMPTS = ["a red circle on a blue background", "a green square", "a small yellow star"]
NOTHING = "nothing"
has_bf16 = _core.active_matrix_unit() != "scalar"
needs_bf16 = pytest.mark.skipif(not has_bf16, reason="needs AVX512_BF16 or AMX")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


def compiled(model: str | Path, target: str, cache: Path, **options: Any) -> tx.Pipeline:
    directory = open_directory(model)
    engine = compile_directory(directory, target, cache)
    return tx.Pipeline(directory, engine=engine, threads=1, **options)


@pytest.fixture(scope="module")
def exported() -> tx.Pipeline:
    return tx.Pipeline.from_pretrained(TINY_SD, precision="fp32", threads=1)


# The exactness of the loop around split graphs: every operator in float32, on any machine.


@pytest.fixture(scope="module", params=["reference", "cpu-fp32"])
def split(request: pytest.FixtureRequest, cache: Path) -> tx.Pipeline:
    return compiled(TINY_SD, request.param, cache)


def latents(pipeline: tx.Pipeline, prompts: Any = PROMPTS[:2], **options: Any) -> np.ndarray:
    options = {"num_inference_steps": 4, "seed": 5, "output_type": "latent", **options}
    return np.asarray(pipeline(prompts, **options).images)


CASES: dict[str, dict[str, Any]] = {
    "guided": {"negative_prompt": NOTHING},
    "one image": {"prompts": PROMPTS[0]},
    "unguided": {"guidance_scale": 1.0},
    "two per prompt": {"num_images_per_prompt": 2, "negative_prompt": ["a", "b"]},
    "heun": {"sampler": "heun"},
    "ancestral": {"sampler": "euler_ancestral"},
    "cfg++": {"sampler": "euler_cfg_pp"},
    "interval": {"guidance_interval": (0.3, 3.0)},
    "rescale": {"guidance_rescale": 0.7},
    "guidance per step": {"guidance_scale": [7.0, 1.0, 3.0, 1.0]},
    "step by step": {"sampler": "dpm_adaptive"},
    "other size": {"height": 48, "width": 64},
}


@pytest.mark.parametrize("case", CASES)
def test_split_graphs_give_what_the_export_gives(
    case: str, split: tx.Pipeline, exported: tx.Pipeline
) -> None:
    options = CASES[case]
    expected, found = latents(exported, **options), latents(split, **options)
    scale = np.abs(expected).max()
    # A sampler that chooses its own steps follows a difference of one bit.
    tolerance = 1e-3 if case == "step by step" else 1e-5
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * max(1.0, scale))


def test_the_graphs_are_split(split: tx.Pipeline) -> None:
    assert split.engine is not None
    unet = split.engine.parts["unet"]
    assert set(unet.graphs) == {"body", "time", "prompt"}
    if split.engine.target == "reference":  # the other leaves reshapes that name the batch
        assert unet.split["prefix"] > 0


@pytest.mark.parametrize("images_per_run", [1, 2, None])
def test_runs_of_several_images(
    images_per_run: int | None, cache: Path, exported: tx.Pipeline
) -> None:
    pipeline = compiled(TINY_SD, "reference", cache, images_per_run=images_per_run)
    options = {"prompts": PROMPTS, "negative_prompt": ["a", "b", "c"]}
    expected, found = latents(exported, **options), latents(pipeline, **options)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def picture() -> Image.Image:
    pixels = np.random.default_rng(3).integers(0, 256, (32, 32, 3), np.uint8)
    return Image.fromarray(pixels)


def mask() -> Image.Image:
    pixels = np.zeros((32, 32), np.uint8)
    pixels[8:24, 8:] = 255
    return Image.fromarray(pixels)


def test_image_to_image_and_inpainting(split: tx.Pipeline, exported: tx.Pipeline) -> None:
    for options in ({"image": picture()}, {"image": picture(), "mask_image": mask()}):
        expected = latents(exported, PROMPTS[0], **options)
        found = latents(split, PROMPTS[0], **options)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_embeddings_that_a_callback_replaces(split: tx.Pipeline, exported: tx.Pipeline) -> None:
    other = np.random.default_rng(2).standard_normal((4, 77, 32)).astype(np.float32)

    def replace(pipe: Any, step: int, timestep: float, values: dict[str, Any]) -> dict[str, Any]:
        return {"prompt_embeds": other} if step == 1 else {}

    options = {
        "callback_on_step_end": replace,
        "callback_on_step_end_tensor_inputs": ["prompt_embeds"],
    }
    expected, found = latents(exported, **options), latents(split, **options)
    assert np.abs(expected - latents(exported)).max() > 0.1
    # Embeddings unlike any text: differences grow with them.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize(
    "form",
    [
        {"timestep": "steps", "timestep_dtype": "int64"},
        {"timestep": "batch"},
        {"timestep": "scalar", "half": True},
    ],
)
def test_exports_of_every_form(form: dict[str, Any], tmp_path: Path) -> None:
    model = build_tiny_directory(tmp_path / "model", **form)
    plain = tx.Pipeline.from_pretrained(model, precision="fp32", threads=1)
    expected = latents(plain)
    found = latents(compiled(model, "reference", tmp_path / "cache"))
    # Half precision: the export computes in it, the compiled graphs do not.
    tolerance = 1e-2 if form.get("half") else 1e-5
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_networks_that_take_the_mask(tmp_path: Path, cache: Path) -> None:
    model = add_mask_channels(Path(shutil.copytree(TINY_SD, tmp_path / "model")))
    options = {"image": picture(), "mask_image": mask(), "num_images_per_prompt": 2}
    expected = latents(tx.Pipeline.from_pretrained(model, precision="fp32"), **options)
    found = latents(compiled(model, "reference", cache), **options)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


# bfloat16


@pytest.fixture(scope="module")
def bf16(cache: Path) -> tx.Pipeline:
    return tx.Pipeline.from_pretrained("tiny-shapes", precision="bf16", cache_dir=cache, threads=1)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Decibels, of pictures in 0..1."""
    return float(-10 * np.log10(np.mean((a - b) ** 2)))


@needs_bf16
def test_bf16_pictures_are_those_of_fp32(bf16: tx.Pipeline) -> None:
    fp32 = tx.Pipeline.from_pretrained("tiny-shapes", precision="fp32")
    options = {"seed": 7, "output_type": "np", "num_inference_steps": 20}
    expected, found = fp32(PROMPTS, **options).images, bf16(PROMPTS, **options).images
    for a, b in zip(expected, found, strict=True):
        assert psnr(a, b) >= 38.0  # measured: 50 to 60


@needs_bf16
def test_bf16_pictures_do_not_depend_on_batch_and_threads(bf16: tx.Pipeline, cache: Path) -> None:
    options = {"negative_prompt": NOTHING, "num_inference_steps": 3}
    together = latents(bf16, PROMPTS, **options)
    for index, prompt in enumerate(PROMPTS):
        alone = latents(bf16, prompt, **{**options, "seed": 5 + index})
        np.testing.assert_array_equal(alone[0], together[index])
    threaded = tx.Pipeline.from_pretrained(
        "tiny-shapes", precision="bf16", cache_dir=cache, threads=3
    )
    np.testing.assert_array_equal(latents(threaded, PROMPTS, **options), together)


@needs_bf16
def test_bf16_pipelines_serve_threads(bf16: tx.Pipeline) -> None:
    options = {"num_inference_steps": 3}
    alone = [latents(bf16, prompt, **options) for prompt in PROMPTS]
    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        together = pool.map(lambda prompt: latents(bf16, prompt, **options), PROMPTS)
        for expected, found in zip(alone, together, strict=True):
            np.testing.assert_array_equal(found, expected)


@needs_bf16
def test_bf16_edits(cache: Path) -> None:
    model = TINY_SD
    pipeline = tx.Pipeline.from_pretrained(model, precision="bf16", cache_dir=cache, threads=1)
    exported = tx.Pipeline.from_pretrained(model, precision="fp32", threads=1)
    for options in ({"image": picture()}, {"image": picture(), "mask_image": mask()}):
        options = {"seed": 1, "num_inference_steps": 4, "output_type": "np", **options}
        a, b = (pipe(PROMPTS[0], **options).images for pipe in (exported, pipeline))
        # Weights that were never trained: 33 dB and more were measured.
        assert psnr(np.asarray(a), np.asarray(b)) > 28.0


# The choice, and the cache


def test_a_second_pipeline_finds_the_engine(cache: Path) -> None:
    choice = Choice("bf16", "of this test", False)
    directory = open_directory(TINY_SD)
    first = find_engine(directory, choice, cache_dir=cache)
    compiled_anew: list[Any] = []
    second = find_engine(
        directory, choice, cache_dir=cache, progress=lambda *args: compiled_anew.append(args)
    )
    assert first == second
    assert not compiled_anew
    assert find_engine(directory, Choice("fp32", "", False), cache_dir=cache) is None


@pytest.mark.parametrize(("name", "verify"), [("body.onnx", "size"), ("body.weights", "full")])
def test_damaged_engines_are_compiled_again(name: str, verify: str, tmp_path: Path) -> None:
    directory, choice = open_directory(TINY_SD), Choice("bf16", "of this test", False)
    engine = find_engine(directory, choice, cache_dir=tmp_path)
    assert engine is not None
    file = engine.path / "unet" / name
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    with pytest.warns(TextopiaWarning, match="has changed since it was written"):
        assert find_engine(directory, choice, cache_dir=tmp_path, verify=verify) is not None
    assert file.read_bytes() != damaged
    find_engine(directory, choice, cache_dir=tmp_path, verify=verify)  # no warning: it is sound


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    nowhere = tmp_path / "file" / "cache"
    directory = open_directory(TINY_SD)
    with pytest.raises(OutputError, match="engine cache"):
        find_engine(directory, Choice("bf16", "asked for", False), cache_dir=nowhere)
    with pytest.warns(TextopiaWarning, match="fp32 instead of bf16"):
        assert find_engine(directory, Choice("bf16", "AMX", True), cache_dir=nowhere) is None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Makes file systems of a given size, e.g. "1m"."""
    places: list[Path] = []

    def mount(size: str) -> Path:
        place = tmp_path / size
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("needs the right to mount a file system")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", str(place)], check=True)


# Full at the first file, within the weights, within a graph, just before the end.
@pytest.mark.parametrize("size", ["16k", "64k", "600k", "2m"])
def test_a_full_disk(small_disk: Callable[[str], Path], size: str) -> None:
    place = small_disk(size)
    directory = open_directory("tiny-shapes")
    with pytest.raises(
        OutputError, match=r"No space left on device.*\n?.*Free some space"
    ) as caught:
        compile_directory(directory, "cpu-bf16", place)
    assert caught.value.errno == errno.ENOSPC
    left = {path.suffix for path in place.iterdir()}
    assert left <= {".lock", ".json"}  # nothing of the engine
    with pytest.warns(TextopiaWarning, match="fp32 instead of bf16.*No space left"):
        assert find_engine(directory, Choice("bf16", "AMX", True), cache_dir=place) is None


def test_other_compilers_have_engines_of_their_own(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = open_directory(TINY_SD)
    first = compile_directory(directory, "reference", cache)
    version = targets.COMPILER_VERSION + 1
    monkeypatch.setattr("textopia_fast.graph.engine.COMPILER_VERSION", version)
    second = compile_directory(directory, "reference", cache)
    assert second.path != first.path
    assert second.path.name.endswith(f"-{version}")


def _compile(cache: str, results: Any) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        built: list[Any] = []
        engine = compile_directory(
            open_directory(TINY_SD), "reference", cache, lambda *args: built.append(args)
        )
    results.put((str(engine.path), bool(built), [str(warning.message) for warning in caught]))


def test_two_processes_compile_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [
        context.Process(target=_compile, args=(str(tmp_path), results), daemon=True)
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert found[0][0] == found[1][0]
    assert sorted(built for _, built, _ in found) == [False, True]


def with_units(monkeypatch: pytest.MonkeyPatch, active: str) -> None:
    monkeypatch.setattr(_core, "active_matrix_unit", lambda: active)
    monkeypatch.setattr(_core, "supported_matrix_units", lambda: [active, "scalar"])


@pytest.mark.parametrize(
    ("unit", "expected"), [("amx_bf16", "bf16"), ("avx512_bf16", "fp32"), ("scalar", "fp32")]
)
def test_the_choice_follows_the_machine(
    unit: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_units(monkeypatch, unit)
    choice = choose_precision()
    assert (choice.precision, choice.is_automatic) == (expected, True)
    assert unit in choice.reason
    assert choose_precision("fp32").precision == "fp32"
    if unit == "scalar":
        with pytest.raises(ConfigurationError, match="needs amx_bf16 or avx512_bf16; found"):
            choose_precision("bf16")
    else:
        assert choose_precision("bf16").precision == "bf16"


@pytest.mark.parametrize(
    ("precision", "target"),
    [("auto", "cuda-fp16"), ("fp16", "cuda-fp16"), ("bf16", "cuda-bf16"), ("fp32", None)],
)
def test_gpus_have_targets_of_their_own(precision: str, target: str | None) -> None:
    choice = choose_precision(precision, "cuda:1")
    assert choice.target == target
    assert choice.is_automatic == (precision == "auto")


def test_a_cpu_computes_nothing_in_float16() -> None:
    with pytest.raises(ConfigurationError, match="'fp16', allowed are 'fp32', 'bf16' and "):
        tx.Pipeline.from_pretrained("tiny-shapes", precision="fp16")


def test_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="precision: got 'int4'"):
        tx.Pipeline.from_pretrained(TINY_SD, precision="int4")
    with pytest.raises(tx.errors.InvalidRequestError, match="verify: got 'twice'"):
        tx.Pipeline.from_pretrained(TINY_SD, verify="twice")
