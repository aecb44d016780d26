"""Guidance rescale and dynamic thresholding give the pictures of diffusers, run live."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.parity.test_tiny_sd import DIRECTORY, TOLERANCE, Pipelines

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

# diffusers' own notices
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
DDIM = {"steps_offset": 1, "clip_sample": False}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "rescale-ddim": ("DDIMScheduler", DDIM, {"guidance_rescale": 0.7}),
    "rescale-v": (
        "DDIMScheduler",
        {**DDIM, "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
        {"guidance_rescale": 0.7},
    ),
    "rescale-ancestral": ("EulerAncestralDiscreteScheduler", {}, {"guidance_rescale": 1.0}),
    "rescale-heun": ("HeunDiscreteScheduler", {}, {"guidance_rescale": 0.3}),
    "rescale-unguided": ("DDIMScheduler", DDIM, {"guidance_rescale": 0.7, "guidance_scale": 1.0}),
    "threshold-ddim": ("DDIMScheduler", {**DDIM, "thresholding": True}, {}),
    "threshold-dpm": (
        "DPMSolverMultistepScheduler",
        {"thresholding": True, "sample_max_value": 2.0, "dynamic_thresholding_ratio": 0.95},
        {"guidance_rescale": 0.5},
    ),
    "threshold-lcm": ("LCMScheduler", {"thresholding": True}, {"guidance_scale": 1.5}),
}


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Pipelines:
    return Pipelines(tmp_path_factory.mktemp("schedulers"))


@pytest.mark.parametrize("name", CASES)
def test_live_picture(name: str, pipelines: Pipelines) -> None:
    from tests.support import diffusers_ort

    class_name, settings, given = CASES[name]
    config = BETAS | settings
    theirs = diffusers_ort.load(DIRECTORY, getattr(diffusers, class_name)(**config), threads=1)
    options = {
        "prompt": "a small dog under a bright star",
        "negative_prompt": "blurry",
        "num_inference_steps": 6,
        "guidance_scale": 7.5,
        "num_images_per_prompt": 2,
        "output_type": "np",
    } | given
    generators = [torch.Generator().manual_seed(seed) for seed in (3, 8)]
    expected = theirs(**options, generator=generators).images
    ours = pipelines.get({"_class_name": class_name} | config)
    got = ours(**options, seed=[3, 8]).images
    np.testing.assert_allclose(got, expected, rtol=0, atol=TOLERANCE)
    if "guidance_rescale" in given and options["guidance_scale"] > 1.0:
        plain = ours(**{**options, "guidance_rescale": 0.0}, seed=[3, 8]).images
        assert np.abs(got - plain).max() > 10 * TOLERANCE
