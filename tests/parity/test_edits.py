"""Image-to-image and inpainting give the pictures that diffusers gives, seed for seed.

The golden pictures come from diffusers with torch networks (tests/golden/make_tiny_sd_edits.py);
the live comparison runs diffusers here over the same ONNX graphs, when it is installed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import textopia_fast as tx
from tests.golden import edit_inputs as inputs

GOLDEN = Path(__file__).parent.parent / "golden"
with np.load(GOLDEN / "tiny_sd_edits.npz") as _file:
    CASES = json.loads(str(_file["cases"]))
    PROVENANCE = json.loads(str(_file["provenance"]))
    IMAGES = _file["images"].astype(np.float32) / 65535

# Those that begin or blend in a way of their own are compared live.
LIVE = {
    **inputs.SCHEDULERS,
    "plms": ("PNDMScheduler", {"skip_prk_steps": True, "steps_offset": 1}),
    "plms_v": (
        "PNDMScheduler",
        {"skip_prk_steps": True, "prediction_type": "v_prediction", "steps_offset": 1},
    ),
    "dpm_2": ("KDPM2DiscreteScheduler", {}),
    "dpm_2_ancestral": ("KDPM2AncestralDiscreteScheduler", {"use_karras_sigmas": True}),
}
CLASS_NAMES = {
    "image": "StableDiffusionImg2ImgPipeline",
    "inpaint": "StableDiffusionInpaintPipeline",
}

# As for text-to-image: another runtime's float32 networks, and sigmas in float64.
TOLERANCE = 3e-4
REGENERATE = "run tests/golden/make_tiny_sd_edits.py if the model was changed"


@pytest.fixture(scope="module")
def pipe_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tx.Pipeline]:
    """Our pipeline with the scheduler configuration of a sampler."""
    made: dict[str, tx.Pipeline] = {}

    def get(sampler: str) -> tx.Pipeline:
        if sampler not in made:
            path = tmp_path_factory.mktemp("model") / "model"
            shutil.copytree(GOLDEN / "tiny_sd", path)
            class_name, settings = LIVE[sampler]
            config = {"_class_name": class_name, **inputs.SD, **settings}
            (path / "scheduler" / "scheduler_config.json").write_text(json.dumps(config))
            made[sampler] = tx.Pipeline.from_pretrained(path, threads=1, precision="fp32")
        return made[sampler]

    return get


def request(kind: str, strength: float, height: int = 64, width: int = 64) -> dict[str, Any]:
    masks = [Image.fromarray(inputs.mask(k, height, width)) for k in range(2)]
    return {
        **({"mask_image": masks} if kind == "inpaint" else {}),
        "prompt": inputs.PROMPTS,
        "negative_prompt": inputs.NEGATIVE,
        "num_inference_steps": inputs.STEPS,
        "strength": strength,
        "output_type": "np",
        "image": [Image.fromarray(inputs.picture(k, height, width)) for k in range(2)],
    }


@pytest.mark.parametrize(
    "index", range(len(CASES)), ids=["-".join(map(str, c.values())) for c in CASES]
)
def test_golden_picture(index: int, pipe_of: Callable[[str], tx.Pipeline]) -> None:
    case = CASES[index]
    options = request(case["kind"], case["strength"])
    out = pipe_of(case["sampler"])(**options, seed=inputs.SEED, keep_unmasked=False)
    stride = PROVENANCE["stride"]
    seen = out.images[:, ::stride, ::stride]
    np.testing.assert_allclose(seen, IMAGES[index], rtol=0, atol=TOLERANCE, err_msg=REGENERATE)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # diffusers'
@pytest.mark.parametrize("kind", ["image", "inpaint"])
@pytest.mark.parametrize("sampler", LIVE)
def test_live_picture(sampler: str, kind: str, pipe_of: Callable[[str], tx.Pipeline]) -> None:
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    from tests.support import diffusers_ort

    class_name, settings = LIVE[sampler]
    theirs = diffusers_ort.load(
        GOLDEN / "tiny_sd",
        getattr(diffusers, class_name)(**inputs.SD, **settings),
        threads=1,
        pipeline=getattr(diffusers, CLASS_NAMES[kind]),
    )
    options = request(kind, 0.6, height=53, width=80)  # is resized to 48 x 80
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 2**40 + 1)]
    # its inpainting takes the model's size, not the picture's
    size = {"height": 48, "width": 80} if kind == "inpaint" else {}
    expected = theirs(**options, **size, generator=generators).images
    ours = pipe_of(sampler)(**options, seed=[3, 2**40 + 1], keep_unmasked=False).images
    assert ours.shape == (2, 48, 80, 3)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # diffusers'
@pytest.mark.parametrize("strength", [0.2, 0.95])
@pytest.mark.parametrize("kind", ["image", "inpaint"])
def test_plms_begins_late(
    kind: str, strength: float, pipe_of: Callable[[str], tx.Pipeline]
) -> None:
    """As the class of diffusers does, whose list of timesteps has one entry more than steps."""
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    pytest.importorskip("transformers")
    from tests.support import diffusers_ort

    class_name, settings = LIVE["plms"]
    theirs = diffusers_ort.load(
        GOLDEN / "tiny_sd",
        getattr(diffusers, class_name)(**inputs.SD, **settings),
        threads=1,
        pipeline=getattr(diffusers, CLASS_NAMES[kind]),
    )
    options = request(kind, strength)
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    expected = theirs(**options, generator=generators).images
    ours = pipe_of("plms")(**options, seed=[3, 4], keep_unmasked=False).images
    np.testing.assert_allclose(ours, expected, rtol=0, atol=TOLERANCE)
