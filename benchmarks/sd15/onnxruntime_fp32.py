"""The export on ONNX Runtime's CPU provider, float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sd15.case import NetworkCase
from benchmarks.timing import require

NAME = "onnxruntime fp32"


def make(case: NetworkCase) -> Callable[[], np.ndarray]:
    session = open_graph(case.graph, case.threads)
    feeds = case.feeds()
    return lambda: session.run(None, feeds)[0]


def open_graph(graph: Path, threads: int) -> Any:
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
