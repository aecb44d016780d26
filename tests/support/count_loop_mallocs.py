"""Run with count_mallocs.so preloaded: prints the allocations of a hundred steps and of their runs.

    LD_PRELOAD=count_mallocs.so python -m tests.support.count_loop_mallocs SAMPLER NOISE OPTIONS

OPTIONS is JSON: {"trace": options of the program, "sample": options of the call}.

Output: JSON {"loop": allocations of this thread in 100 more steps, "graph": in 100 more bare runs
of the same graph at the same batch size, "evaluations": graph runs per step}.
"""

from __future__ import annotations

import ctypes
import json
import sys

import numpy as np

import textopia_fast as tx
from tests.support.cheap_unet import TOKENS, cheap_unet

WIDTH = 8
MORE = 100


def main() -> None:
    sampler, noise, options = sys.argv[1:]
    given = json.loads(options)
    counter = ctypes.CDLL(None).textopia_test_malloc_count
    counter.restype = ctypes.c_ulong

    # one thread: whatever a run allocates, it allocates in this thread
    denoiser = tx.Denoiser(cheap_unet(WIDTH), threads=1)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 4, 8, 8), np.float32)
    text = rng.standard_normal((2, TOKENS, WIDTH), np.float32)
    table = tx.samplers.TrainingTable(1000, 0.00085, 0.012, "scaled_linear")
    programs = {
        steps: tx.trace(sampler, tx.schedules.discrete(steps, table), **given.get("trace", {}))
        for steps in (MORE, 2 * MORE)
    }

    def allocations(work) -> int:
        before = counter()
        work()
        return counter() - before

    def loop(steps: int) -> int:
        return allocations(
            lambda: tx.sample(
                denoiser,
                x,
                programs[steps],
                cond={"encoder_hidden_states": text[:1]},
                uncond={"encoder_hidden_states": text[1:]},
                guidance=7.5,
                noise=getattr(tx.Noise, noise)(3),
                **given.get("sample", {}),
            )
        )

    feeds = {
        "sample": np.concatenate([x, x]),
        "timestep": np.array(1.0, np.float32),
        "encoder_hidden_states": text,
    }

    def graph(count: int) -> int:
        return allocations(lambda: denoiser.session.run_repeatedly(feeds, count))

    def more(measure) -> int:
        for count in (MORE, 2 * MORE):  # first uses fill caches of Python and of the runtime
            measure(count)
        return min(measure(2 * MORE) - measure(MORE) for _ in range(3))

    evaluations = (programs[2 * MORE].denoise_count - programs[MORE].denoise_count) / MORE
    print(json.dumps({"loop": more(loop), "graph": more(graph), "evaluations": evaluations}))


if __name__ == "__main__":
    main()
