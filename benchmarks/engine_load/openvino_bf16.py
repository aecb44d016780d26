"""The exports read and compiled by OpenVINO, static shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.engine_load.case import Case, Network, draw
from benchmarks.sd15.openvino_bf16 import NAME, open_network

__all__ = ["NAME", "PACKAGES", "as_network", "load"]

PACKAGES = ("openvino",)


def load(case: Case) -> Callable[[], np.ndarray]:
    requests = [open_network(network) for network in case.networks()]
    return lambda: draw(case, *map(as_network, requests))


def as_network(request: Any) -> Network:
    return lambda feeds: request.infer(feeds)[0].copy()
