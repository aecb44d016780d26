"""The same decoder in PyTorch: bfloat16, channels last, eager."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.timing import require
from benchmarks.vae_decode.case import Case

NAME = "torch bf16 channels-last"


def make(case: Case) -> Callable[[], np.ndarray]:
    require("torch", "diffusers")
    import diffusers
    import torch

    from benchmarks.export_sd15 import build_vae

    diffusers.logging.set_verbosity_error()  # it warns of the cast to bfloat16
    torch.set_num_threads(case.threads)
    model = build_vae().to(dtype=torch.bfloat16, memory_format=torch.channels_last)
    (latents,) = (torch.from_numpy(value) for value in case.feeds().values())
    latents = latents.to(torch.bfloat16, memory_format=torch.channels_last)

    def run() -> np.ndarray:
        with torch.inference_mode():
            return model.decode(latents, return_dict=False)[0].float().numpy()

    return run
