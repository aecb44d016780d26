"""`accelerate` gives pipelines of optimum-onnx the native loop and keeps their face."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import textopia_fast as tx
from tests.golden import edit_inputs as inputs
from textopia_fast.interop.diffusers import accelerate
from textopia_fast.interop.drop_in import stand_in

DIRECTORY = Path(__file__).parent.parent / "golden" / "tiny_sd"
FEW = {"num_inference_steps": 3, "output_type": "np"}
PARTS = ("unet", "text_encoder", "vae_decoder", "vae_encoder")


def session(provider: str) -> Any:
    return SimpleNamespace(get_providers=lambda: [provider])


def opened(name: str = "ORTStableDiffusionPipeline", **changed: Any) -> Any:
    """What such a pipeline has of what `accelerate` looks at."""
    pipe = type(name, (), {})()
    for part in PARTS:
        path = DIRECTORY / part / "model.onnx"
        setattr(pipe, part, SimpleNamespace(path=path, session=session("CPUExecutionProvider")))
    pipe.scheduler = stand_in("EulerDiscreteScheduler", inputs.SD)
    pipe.safety_checker = None
    pipe.image_processor = object()
    vars(pipe).update(changed)
    return pipe


def test_a_stand_in() -> None:
    pipe = opened()
    fast = accelerate(pipe, threads=1)
    assert inspect.signature(type(fast).__call__) == inspect.signature(
        tx.StableDiffusionPipeline.__call__
    )
    assert fast.scheduler is pipe.scheduler
    assert fast.image_processor is pipe.image_processor
    with pytest.raises(AttributeError, match="nothing"):
        _ = fast.nothing
    native = tx.Pipeline.from_pretrained(DIRECTORY, threads=1)
    expected = native("a cat", **FEW, seed=1, sampler=pipe.scheduler).images
    np.testing.assert_array_equal(fast("a cat", **FEW, seed=1).images, expected)


def test_the_kind_is_kept() -> None:
    fast = accelerate(opened("ORTStableDiffusionImg2ImgPipeline"), threads=1)
    assert isinstance(fast, tx.StableDiffusionImg2ImgPipeline)
    picture = Image.fromarray(inputs.picture(0))
    assert fast("a cat", picture, 0.7, **FEW, seed=1).images.shape == (1, 64, 64, 3)


def test_refusals() -> None:
    with pytest.raises(tx.UnsupportedModelError, match="ORTFluxPipeline"):
        accelerate(opened("ORTFluxPipeline"))
    with pytest.raises(tx.UnsupportedParameterError, match="safety_checker"):
        accelerate(opened(safety_checker=object()))
    cuda = SimpleNamespace(path=DIRECTORY / "unet" / "m.onnx", session=session("CUDAExecution"))
    with pytest.raises(tx.UnsupportedParameterError, match="CUDAExecution"):
        accelerate(opened(unet=cuda))
    elsewhere = SimpleNamespace(path=Path("/elsewhere/unet/model.onnx"), session=None)
    with pytest.raises(tx.UnsupportedModelError, match="no one directory"):
        accelerate(opened(unet=elsewhere))
    with pytest.raises(tx.UnsupportedModelError, match="no one directory"):
        accelerate(opened(unet=SimpleNamespace()))


KINDS = ["", "Img2Img", "Inpaint"]


@pytest.mark.filterwarnings("ignore")  # those of optimum and of what it imports
@pytest.mark.parametrize("kind", KINDS)
def test_optimum(kind: str) -> None:
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    optimum = pytest.importorskip("optimum.onnxruntime", exc_type=ImportError)
    name = f"ORTStableDiffusion{kind}Pipeline"
    try:
        cls = getattr(optimum, name)
    except (ImportError, RuntimeError) as error:  # optimum-onnx 0.1 needs transformers < 4.58
        pytest.skip(f"optimum.onnxruntime cannot be imported with what is installed: {error}")
    pipe = cls.from_pretrained(DIRECTORY, safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    fast = accelerate(pipe, threads=1)
    theirs = inspect.signature(cls.__call__).parameters.values()
    ours = inspect.signature(type(fast).__call__).parameters.values()
    assert [(p.name, p.default) for p in theirs if p.kind is not p.VAR_KEYWORD] == [
        (p.name, p.default) for p in ours if p.kind is not p.KEYWORD_ONLY
    ]
    given: dict[str, Any] = {**FEW, "num_inference_steps": 6}
    if kind:
        given["image"] = Image.fromarray(inputs.picture(0))
    if kind == "Inpaint":
        given["mask_image"] = Image.fromarray(inputs.mask(0))
    expected = pipe("a cat", **given, generator=torch.Generator().manual_seed(4))
    got = fast("a cat", **given, seed=4)
    assert type(got) is type(expected)
    np.testing.assert_allclose(got.images, expected.images, rtol=0, atol=3e-4)
