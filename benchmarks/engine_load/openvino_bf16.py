"""The exports read and compiled by OpenVINO, static shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.engine_load.case import Case, Network, draw
from benchmarks.sd15.case import NetworkCase
from benchmarks.sd15.openvino_bf16 import NAME, open_graph

__all__ = ["NAME", "PACKAGES", "load"]

PACKAGES = ("openvino",)


def load(case: Case) -> Callable[[], np.ndarray]:
    requests = [_open(network) for network in case.networks()]
    return lambda: draw(case, *map(_callable, requests))


def _open(network: NetworkCase) -> Any:
    shapes = {name: value.shape for name, value in network.feeds().items()}
    return open_graph(network.graph, network.threads, shapes)


def _callable(request: Any) -> Network:
    return lambda feeds: request.infer(feeds)[0].copy()
