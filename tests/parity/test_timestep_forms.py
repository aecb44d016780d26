"""Every form of timestep that exporters give the U-Net makes the same picture."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import textopia_fast as tx
from tests.parity.test_tiny_sd import DIRECTORY
from tests.support.timestep_forms import FORMS, set_timestep_form


def picture(directory: Path) -> np.ndarray:
    pipe = tx.Pipeline.from_pretrained(directory, threads=1, precision="fp32")
    options = {"sampler": "ddim", "num_inference_steps": 5, "num_images_per_prompt": 2}
    return pipe("a cat", seed=1, output_type="latent", **options).images


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return picture(DIRECTORY)


@pytest.mark.parametrize("form", FORMS)
def test_form(form: str, expected: np.ndarray, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    shutil.copytree(DIRECTORY, directory)
    set_timestep_form(directory / "unet" / "model.onnx", form)
    # DDIM's timesteps are integers, so nothing is lost in int64
    np.testing.assert_array_equal(picture(directory), expected)
