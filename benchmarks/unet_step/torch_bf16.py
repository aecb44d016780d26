"""The same network in PyTorch: bfloat16, channels last, eager."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.timing import require
from benchmarks.unet_step.case import Case

NAME = "torch bf16 channels-last"


def make(case: Case) -> Callable[[], np.ndarray]:
    return make_step(build(case), case)


def build(case: Case) -> Any:
    """The U-Net as a module."""
    require("torch", "diffusers")
    import diffusers
    import torch

    from benchmarks.export_sd15 import build_unet

    diffusers.logging.set_verbosity_error()  # it warns of the cast to bfloat16
    torch.set_num_threads(case.threads)
    return build_unet().to(dtype=torch.bfloat16, memory_format=torch.channels_last)


def make_step(model: Any, case: Case) -> Callable[[], np.ndarray]:
    import torch

    feeds = {name: torch.from_numpy(value) for name, value in case.feeds().items()}
    sample = feeds["sample"].to(torch.bfloat16, memory_format=torch.channels_last)
    text = feeds["encoder_hidden_states"].to(torch.bfloat16)

    def run() -> np.ndarray:
        with torch.inference_mode():
            result = model(sample, feeds["timestep"], text, return_dict=False)[0]
        return result.float().numpy()

    return run
