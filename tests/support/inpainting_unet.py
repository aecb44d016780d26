"""Makes the U-Net of a model directory one for inpainting: 9 channels instead of 4.

The first convolution gets weights for the mask and for the latents of the masked picture behind
its own, which is how such models are made before they are trained further.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

EXTRA_CHANNELS = 5


def add_mask_channels(directory: Path, *, seed: int = 5) -> Path:
    """Changes `unet/` of `directory` in place and returns it."""
    path = directory / "unet" / "model.onnx"
    model = onnx.load(path)
    readers = [node for node in model.graph.node if "sample" in node.input]
    (node,) = (node for node in readers if node.op_type == "Conv")
    (weights,) = (tensor for tensor in model.graph.initializer if tensor.name == node.input[1])
    own = numpy_helper.to_array(weights)
    rng = np.random.default_rng(seed)
    shape = (own.shape[0], EXTRA_CHANNELS, *own.shape[2:])
    extra = rng.normal(0.0, own.std(), shape).astype(own.dtype)
    weights.CopyFrom(numpy_helper.from_array(np.concatenate([own, extra], 1), weights.name))
    channels = own.shape[1] + EXTRA_CHANNELS
    (sample,) = (value for value in model.graph.input if value.name == "sample")
    sample.type.tensor_type.shape.dim[1].dim_value = channels
    onnx.save(model, path)
    config = directory / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "in_channels": channels}))
    return directory
