"""The same models from OpenVINO's own cache, which spares it reading and compiling them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.engine_load.case import Case, draw
from benchmarks.engine_load.openvino_bf16 import PACKAGES, as_network
from benchmarks.sd15.case import NetworkCase
from benchmarks.sd15.openvino_bf16 import read_static, settings
from benchmarks.timing import require

__all__ = ["NAME", "PACKAGES", "load"]

NAME = "openvino bf16, cached"


def load(case: Case) -> Callable[[], np.ndarray]:
    requests = [_open(network) for network in case.networks()]
    return lambda: draw(case, *map(as_network, requests))


def _open(network: NetworkCase) -> Any:
    require("openvino")
    import openvino

    folder = network.directory / "openvino" / "cache"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{network.PART}.xml"
    if not path.is_file():  # of its own format, named by a path: then it need not read the model
        openvino.save_model(read_static(network), path)
    cached = {**settings(network.threads), "CACHE_DIR": str(folder)}
    return openvino.Core().compile_model(path, "CPU", cached).create_infer_request()
