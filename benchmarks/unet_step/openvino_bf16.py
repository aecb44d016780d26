"""The export in OpenVINO, static shapes, bfloat16 where its plugin has it for this CPU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.timing import require
from benchmarks.unet_step.case import Case

NAME = "openvino bf16"


def make(case: Case) -> Callable[[], np.ndarray]:
    require("openvino")
    import openvino

    core = openvino.Core()
    model = core.read_model(str(case.graph))
    feeds = case.feeds()
    model.reshape({name: value.shape for name, value in feeds.items()})
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16",
        "INFERENCE_NUM_THREADS": case.threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda: request.infer(feeds)[0]
