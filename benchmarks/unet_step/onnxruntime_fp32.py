"""The export on ONNX Runtime's CPU provider, float32."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.timing import require
from benchmarks.unet_step.case import Case

NAME = "onnxruntime fp32"


def make(case: Case) -> Callable[[], np.ndarray]:
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = case.threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        str(case.graph), options, providers=["CPUExecutionProvider"]
    )
    feeds = case.feeds()
    return lambda: session.run(None, feeds)[0]
