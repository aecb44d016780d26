"""The same network in PyTorch: bfloat16, channels last, `torch.compile` with frozen weights."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import numpy as np

from benchmarks.timing import NotInstalledError
from benchmarks.unet_step.case import Case
from benchmarks.unet_step.torch_bf16 import build, make_step

NAME = "torch.compile bf16"
# Compiling takes minutes, and leaves a process that runs on one thread.
FILLS_CACHE = True


def make(case: Case) -> Callable[[], np.ndarray]:
    if shutil.which("c++") is None and shutil.which("g++") is None:
        raise NotInstalledError("not installed: a C++ compiler, which torch.compile calls")
    model = build(case)
    import torch
    from torch._inductor import config

    config.freezing = True  # lets oneDNN take the weights in its own layouts
    step = make_step(torch.compile(model), case)
    try:
        step()  # compiles
    except torch._dynamo.exc.TorchDynamoException as error:
        raise NotInstalledError(f"torch.compile fails: {str(error).splitlines()[0]}") from error
    return step
