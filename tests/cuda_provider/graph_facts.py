"""Run as a program: what the provider's captured graphs do, by ONNX Runtime's own Python interface.

Prints one JSON object. The network copies, so that what a replay reads and writes can be seen.
Arguments: the folder of onnxruntime-gpu, that of the fake libraries.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
from pathlib import Path

sys.path.insert(0, sys.argv[1])
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime as ort
from onnx import helper

from tests.cuda_provider.graphs import model_of

ROWS = 4


class Fake:
    def __init__(self, folder: Path) -> None:
        names = ("cuda.so.1", "cudart.so.13", "cublasLt.so.13", "cublas.so.13", "curand.so.10")
        opened = [
            ctypes.CDLL(str(folder / f"lib{name}"), mode=ctypes.RTLD_GLOBAL) for name in names
        ]
        self.driver, self.runtime = opened[:2]
        self.driver.fake_log.restype = ctypes.c_char_p
        self.driver.fake_reset()

    def stream(self) -> int:
        made = ctypes.c_void_p()
        self.runtime.cudaStreamCreateWithFlags(ctypes.byref(made), 1)
        return made.value

    def memory(self, values: np.ndarray) -> np.ndarray:
        """The same values in "device" memory, which the host can read."""
        made = ctypes.c_void_p()
        self.runtime.cudaMalloc(ctypes.byref(made), ctypes.c_size_t(values.nbytes))
        ctypes.memmove(made, values.ctypes.data, values.nbytes)
        buffer = (ctypes.c_char * values.nbytes).from_address(made.value)
        return np.frombuffer(buffer, values.dtype).reshape(values.shape)

    def calls_of(self, run) -> dict[str, int]:
        self.driver.fake_clear_log()
        run()
        names = ("Capture", "GraphLaunch", "Synchronize", "MemcpyAsync", "Malloc")
        lines = [
            line for line in self.driver.fake_log().decode().splitlines() if line[:4] == "cuda"
        ]
        return {
            name: n for name in names if (n := sum(name in line.split(" ")[0] for line in lines))
        }


def main() -> dict[str, object]:
    fake = Fake(Path(sys.argv[2]))
    stream = fake.stream()
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = model_of([node], {"x": [ROWS, 4]}, {"y": [ROWS, 4]})
    options = {"enable_cuda_graph": "1", "user_compute_stream": str(stream)}
    session = ort.InferenceSession(graph, providers=[("CUDAExecutionProvider", options)])

    def bound(x: np.ndarray, y: np.ndarray) -> ort.IOBinding:
        binding = session.io_binding()
        binding.bind_input("x", "cuda", 0, np.float32, x.shape, x.ctypes.data)
        binding.bind_output("y", "cuda", 0, np.float32, y.shape, y.ctypes.data)
        return binding

    def run(binding: ort.IOBinding, graph_id: int | None, waits: bool = False) -> dict[str, int]:
        run_options = ort.RunOptions()
        if not waits:
            run_options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        if graph_id is not None:
            run_options.add_run_config_entry("gpu_graph_id", str(graph_id))
        return fake.calls_of(lambda: session.run_with_iobinding(binding, run_options))

    def pair(value: float) -> tuple[np.ndarray, np.ndarray]:
        return (
            fake.memory(np.full((ROWS, 4), value, np.float32)),
            fake.memory(np.zeros((ROWS, 4), np.float32)),
        )

    facts: dict[str, object] = {}
    x, y = pair(1)
    first = bound(x, y)
    facts["first run"] = run(first, 1)
    x[:] = 2
    facts["second run"] = run(first, 1)
    facts["new contents are seen"] = float(y[0, 0])
    facts["a run that waits"] = run(first, 1, waits=True)
    other_x, other_y = pair(5)
    other = bound(other_x, other_y)
    facts["another binding, same id"] = run(other, 1)
    facts["it wrote"] = float(other_y[0, 0])
    facts["another id"] = run(other, 2)
    facts["that wrote"] = float(other_y[0, 0])
    other_y[:] = 0
    facts["no graph"] = run(other, -1)
    facts["which wrote"] = float(other_y[0, 0])
    facts["no id"] = run(first, None)
    facts["no id again"] = run(first, None)
    by_thread: list[dict[str, int]] = []
    thread = threading.Thread(target=lambda: by_thread.append(run(first, 1)))
    thread.start()
    thread.join()
    facts["another thread, same id"] = by_thread[0]
    lines = fake.driver.fake_log().decode().splitlines()
    facts["streams"] = len({line.split(" ")[1] for line in lines if "GraphLaunch" in line})
    return facts


if __name__ == "__main__":
    print(json.dumps(main()))
