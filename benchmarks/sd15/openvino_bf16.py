"""The network in OpenVINO, static shapes, bfloat16 where its plugin has it for this CPU.

In OpenVINO's own format where benchmarks/export_openvino.py has made that, else as exported.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.sd15.case import NetworkCase
from benchmarks.timing import require

NAME = "openvino bf16"


def make(case: NetworkCase) -> Callable[[], np.ndarray]:
    feeds = case.feeds()
    request = open_network(case)
    return lambda: request.infer(feeds)[0]


def open_network(case: NetworkCase) -> Any:
    """An inference request of OpenVINO."""
    require("openvino")
    import openvino

    compiled = openvino.Core().compile_model(read_static(case), "CPU", settings(case.threads))
    return compiled.create_infer_request()


def read_static(case: NetworkCase) -> Any:
    """The network with the sizes of the case."""
    import openvino

    converted = case.directory / "openvino" / case.PART / "openvino_model.xml"
    model = openvino.Core().read_model(converted if converted.is_file() else case.graph)
    model.reshape({name: list(value.shape) for name, value in case.feeds().items()})
    return model


def settings(threads: int) -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": "bf16",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
