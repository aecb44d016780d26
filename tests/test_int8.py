"""Pipelines whose U-Net computes in int8 between its first and its last steps."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import textopia_fast as tx
from tests.support.inpainting_unet import add_mask_channels
from tests.test_engines import NOTHING, PROMPTS, TINY_SD, latents, mask, picture, psnr
from textopia_fast import _core
from textopia_fast.errors import ConfigurationError
from textopia_fast.graph import compile_directory
from textopia_fast.models import open_directory
from textopia_fast.precision import Choice, choose_precision, describe_precision

needs_int8 = pytest.mark.skipif(_core.int8_unit() == "scalar", reason="needs AVX512_VNNI or AMX")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def bf16(cache: Path) -> tx.Pipeline:
    return tx.Pipeline.from_pretrained("tiny-shapes", precision="bf16", cache_dir=cache, threads=1)


@pytest.fixture(scope="module")
def int8(cache: Path) -> tx.Pipeline:
    return tx.Pipeline.from_pretrained("tiny-shapes", precision="int8", cache_dir=cache, threads=1)


@needs_int8
def test_int8_pictures_are_those_of_fp32(int8: tx.Pipeline, bf16: tx.Pipeline) -> None:
    fp32 = tx.Pipeline.from_pretrained("tiny-shapes", precision="fp32")
    options = {"seed": 7, "output_type": "np", "num_inference_steps": 20}
    expected, found = fp32(PROMPTS, **options).images, int8(PROMPTS, **options).images
    for a, b in zip(expected, found, strict=True):
        assert psnr(a, b) >= 30.0  # measured: 52 and more
    assert not np.array_equal(found, bf16(PROMPTS, **options).images)


@needs_int8
def test_int8_pictures_do_not_depend_on_batch_and_threads(int8: tx.Pipeline, cache: Path) -> None:
    options = {"negative_prompt": NOTHING, "num_inference_steps": 4}
    together = latents(int8, PROMPTS, **options)
    for index, prompt in enumerate(PROMPTS):
        alone = latents(int8, prompt, **{**options, "seed": 5 + index})
        np.testing.assert_array_equal(alone[0], together[index])
    threaded = tx.Pipeline.from_pretrained(
        "tiny-shapes", precision="int8", cache_dir=cache, threads=3
    )
    np.testing.assert_array_equal(latents(threaded, PROMPTS, **options), together)


@needs_int8
def test_two_steps_and_step_by_step_samplers_are_bf16(int8: tx.Pipeline, bf16: tx.Pipeline) -> None:
    for options in ({"num_inference_steps": 2}, {"sampler": "dpm_adaptive"}):
        found, expected = (latents(pipe, PROMPTS[0], **options) for pipe in (int8, bf16))
        np.testing.assert_array_equal(found, expected)


@needs_int8
def test_an_inpainting_model_in_int8(tmp_path: Path) -> None:
    model = add_mask_channels(Path(shutil.copytree(TINY_SD, tmp_path / "model")))
    pictures = []
    for precision in ("bf16", "int8"):
        pipe = tx.Pipeline.from_pretrained(
            model, precision=precision, cache_dir=tmp_path / "cache", threads=1
        )
        options = {"seed": 1, "num_inference_steps": 4, "output_type": "np"}
        made = pipe(PROMPTS[0], image=picture(), mask_image=mask(), **options).images
        pictures.append(np.asarray(made))
    assert psnr(*pictures) > 28.0
    assert not np.array_equal(*pictures)


def test_an_int8_engine_adds_one_body_to_that_of_bf16(cache: Path) -> None:
    directory = open_directory(TINY_SD)
    base = compile_directory(directory, "cpu-bf16", cache)
    whole = compile_directory(directory, "cpu-int8", cache)
    own = sorted(path.relative_to(whole.path).as_posix() for path in whole.path.rglob("*.*"))
    assert own == ["engine.json", "unet/body.onnx", "unet/body.weights"]
    body = whole.parts["unet"].graphs["body_int8"]
    assert body == whole.path / "unet" / "body.onnx"
    assert {**whole.parts["unet"].graphs, "body_int8": None} == {
        **base.parts["unet"].graphs,
        "body_int8": None,
    }
    assert whole.parts["vae_decoder"] == base.parts["vae_decoder"]
    assert whole.bytes > base.bytes
    facts = whole.parts["unet"].int8
    assert facts is not None
    assert facts["layers"] > 0
    assert 0 < facts["share"] < 1
    assert facts["kept"]["Conv: fewer than 32 channels"] >= 2


@pytest.mark.parametrize(
    ("unit", "int8_unit"),
    [("amx_bf16", "amx_int8"), ("avx512_bf16", "scalar"), ("scalar", "scalar")],
)
def test_int8_needs_a_unit_for_bytes(
    unit: str, int8_unit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_core, "active_matrix_unit", lambda: unit)
    monkeypatch.setattr(_core, "int8_unit", lambda: int8_unit)
    monkeypatch.setattr(_core, "cpu_features", lambda: ["avx2", "avx512_bf16"])
    if int8_unit == "scalar":
        with pytest.raises(ConfigurationError, match=r"needs amx_int8 and .* avx512_bf16; in use"):
            choose_precision("int8")
        assert "and int8 (" not in describe_precision()
    else:
        assert choose_precision("int8") == Choice("int8", "asked for", False)
        assert f"fp32 and int8 ({int8_unit}) may be asked for" in describe_precision()


def test_gpus_have_no_int8() -> None:
    with pytest.raises(ConfigurationError, match="got 'int8', allowed are 'fp32', 'bf16' and"):
        choose_precision("int8", "cuda:1")
