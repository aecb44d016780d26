"""Three sessions of ONNX Runtime's CPU provider over the exports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.engine_load.case import Case, Network, draw
from benchmarks.sd15.onnxruntime_fp32 import NAME, open_graph

__all__ = ["NAME", "PACKAGES", "load"]

PACKAGES = ("onnxruntime",)


def load(case: Case) -> Callable[[], np.ndarray]:
    sessions = [open_graph(network.graph, case.threads) for network in case.networks()]
    return lambda: draw(case, *map(_callable, sessions))


def _callable(session: Any) -> Network:
    return lambda feeds: session.run(None, feeds)[0]
