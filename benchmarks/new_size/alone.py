"""One network of ours in a process of its own: steady at one size, then its first run at another.

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
    old, new = (normal(1, (1, 4, *size)) for size in (OLD, NEW))
    run(old)  # warm-up: reads the weights
    old_seconds = [_seconds(run, old) for _ in range(int(runs))]
    new_seconds = [_seconds(run, new) for _ in range(1 + int(runs))]
    same = np.array_equal(run(new), open_network()(new))
    found = {"old": old_seconds, "first": new_seconds[0], "steady": new_seconds[1:]}
    print(json.dumps({**found, "same": same}))


def _seconds(run: Callable[[np.ndarray], np.ndarray], latents: np.ndarray) -> float:
    start = time.perf_counter()
    run(latents)
    return time.perf_counter() - start


if __name__ == "__main__":
    main(*sys.argv[1:])
