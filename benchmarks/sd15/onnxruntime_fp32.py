"""The export on ONNX Runtime's CPU provider, float32."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sd15.case import NetworkCase
from benchmarks.sd15.memory import available_bytes
from benchmarks.timing import NotInstalledError, require

NAME = "onnxruntime fp32"
# of the weights in float32: they are read, packed, and a step needs its activations
MEMORY = 2.5


def make(case: NetworkCase) -> Callable[[], np.ndarray]:
    if case.stored_result is not None:  # its weights are in float16
        needed = MEMORY * 2 * case.graph.with_name("model.onnx_data").stat().st_size
        if available_bytes() < needed:
            raise NotInstalledError(f"needs {needed / 1e9:.0f} GB of memory")
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
