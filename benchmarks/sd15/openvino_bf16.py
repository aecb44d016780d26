"""The export in OpenVINO, static shapes, bfloat16 where its plugin has it for this CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sd15.case import NetworkCase
from benchmarks.timing import require

NAME = "openvino bf16"


def make(case: NetworkCase) -> Callable[[], np.ndarray]:
    feeds = case.feeds()
    shapes = {name: value.shape for name, value in feeds.items()}
    request = open_graph(case.graph, case.threads, shapes)
    return lambda: request.infer(feeds)[0]


def open_graph(graph: Path, threads: int, shapes: Mapping[str, Sequence[int]]) -> Any:
    require("openvino")
    import openvino

    core = openvino.Core()
    model = core.read_model(str(graph))
    model.reshape({name: list(shape) for name, shape in shapes.items()})
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16",
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",
    }
    return core.compile_model(model, "CPU", settings).create_infer_request()
