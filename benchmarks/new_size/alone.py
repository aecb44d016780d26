"""One network of ours in a process of its own: warm at one size, then new sizes one by one.

python -m benchmarks.new_size.alone NETWORK DIRECTORY THREADS RUNS
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.new_size import unet, vae_decoder
from benchmarks.new_size.sizes import NEW, OLD
from benchmarks.sd15.case import normal

NETWORKS = {"unet": unet, "vae_decoder": vae_decoder}


def main(network: str, directory: str, threads: str, runs: str) -> None:
    def open_network() -> Callable[[np.ndarray], np.ndarray]:
        return NETWORKS[network].open_network(Path(directory), int(threads))

    run = open_network()
    old = latents(OLD)
    run(old)  # reads the weights
    found = {"old": [seconds(run, old) for _ in range(int(runs))], "new": []}
    for size in NEW:
        x = latents(size)
        first = seconds(run, x)
        found["new"].append({"first": first, "steady": [seconds(run, x) for _ in range(int(runs))]})
    x = latents(NEW[-1])
    found["same"] = np.array_equal(run(x), open_network()(x))
    print(json.dumps(found))


def latents(size: tuple[int, int]) -> np.ndarray:
    return normal(1, (1, 4, *size))


def seconds(run: Callable[[np.ndarray], np.ndarray], x: np.ndarray) -> float:
    start = time.perf_counter()
    run(x)
    return time.perf_counter() - start


if __name__ == "__main__":
    main(*sys.argv[1:])
