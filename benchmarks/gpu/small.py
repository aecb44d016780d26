"""Single kernels and the bare loop: attention, COMBINE, and what a step costs beside its graph."""

from __future__ import annotations

from typing import Any

import numpy as np

from .clock import Runner
from .networks import Machine
from .peers import CONFIG, GUIDANCE, STEPS, open_gpu

REPEATS = 50
# Width of a head: heads, queries and keys of Stable Diffusion.
WIDTHS = {40: (8, 4096), 64: (10, 4096), 80: (8, 1024), 160: (8, 256)}
SIDES = (64, 128)
BACKENDS = ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "MATH")
_IMAGES = 8


def _sizes(machine: Machine, width: int) -> tuple[int, int]:
    return (2, 32) if machine.is_rehearsal else WIDTHS[width]


def describe(machine: Machine, width: int) -> str:
    heads, tokens = _sizes(machine, width)
    return f"{heads} heads, {tokens} x {tokens}, batch 2"


def _launched(machine: Machine, kernel: str, prepare: Any) -> Runner:
    """A runner that launches a kernel `REPEATS` times and has the milliseconds of one."""
    from kernels import manifest

    from .launcher import Launcher, as_compiled

    variant = next(v for v in manifest.compiled() if v.name == kernel)
    gpu = open_gpu(machine)
    architecture = 90
    if not machine.is_rehearsal:
        from textopia_fast import _core

        architecture = _core.CudaDriver().devices[0]["architecture"]
    variant = as_compiled(variant, architecture)
    grid, arguments = prepare(variant)
    launch = Launcher(gpu, repeats=REPEATS)

    def run() -> float:
        launch(variant, grid, arguments)
        return launch.milliseconds

    return Runner(run, measures=True)


def our_attention(machine: Machine, width: int) -> Runner:
    from .sizes import attention_of

    heads, tokens = _sizes(machine, width)

    def prepare(variant: Any) -> tuple[Any, Any]:
        item = attention_of(np.random.default_rng(0), variant, width, heads, tokens, tokens)
        return item.grid, item.arguments

    return _launched(machine, f"attention.fp16.d{width}", prepare)


def torch_attention(machine: Machine, width: int, backend: str) -> Runner:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    heads, tokens = _sizes(machine, width)
    # As a U-Net has them: heads are cut out of rows of tokens.
    q, k, v = (
        machine.tensor(2, tokens, heads, width, seed=seed).transpose(1, 2) for seed in range(3)
    )
    chosen = getattr(SDPBackend, backend)

    def run() -> None:
        with torch.inference_mode(), sdpa_kernel(chosen):
            for _ in range(REPEATS):
                torch.nn.functional.scaled_dot_product_attention(q, k, v)

    return Runner(run, REPEATS)


def our_combine(machine: Machine, side: int) -> Runner:
    from kernels import combine

    size = 4 * side * side

    def prepare(variant: Any) -> tuple[Any, Any]:
        rng = np.random.default_rng(0)
        arguments = combine.example(rng, variant, images=_IMAGES, size=size)
        return combine.grid(size, _IMAGES), arguments

    return _launched(machine, "combine.fp16.even", prepare)


def empty_launch(machine: Machine) -> Runner:
    """The same launch over next to nothing: one image of 16 elements."""
    from kernels import combine

    def prepare(variant: Any) -> tuple[Any, Any]:
        rng = np.random.default_rng(0)
        return combine.grid(16, 1), combine.example(rng, variant, images=1, size=16)

    return _launched(machine, "combine.fp16.even", prepare)


def scheduler_step(machine: Machine, side: int) -> Runner:
    """What COMBINE does for DPM++ 2M, in diffusers: guidance, step, and the next scaled input."""
    import diffusers
    import torch

    config = {name: value for name, value in CONFIG.items() if not name.startswith("_")}
    start = machine.tensor(_IMAGES, 4, side, side)
    output = machine.tensor(2 * _IMAGES, 4, side, side, seed=2)

    def run() -> Any:
        scheduler = diffusers.DPMSolverMultistepScheduler.from_config(config)
        scheduler.set_timesteps(REPEATS, device=machine.device)
        x = start
        with torch.inference_mode():
            for timestep in scheduler.timesteps:
                negative, positive = output.chunk(2)
                guided = negative + GUIDANCE * (positive - negative)
                x = scheduler.step(guided, timestep, x).prev_sample
                scheduler.scale_model_input(torch.cat([x, x]), timestep)
        return x

    return Runner(run, REPEATS)


def bare_loop(machine: Machine) -> Runner:
    """Steps over a graph of one multiplication."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    import textopia_fast as tx
    from textopia_fast.samplers import from_config, trace_plan

    sizes = ["rows", 4, "h", "w"]
    values = [helper.make_tensor_value_info("sample", TensorProto.FLOAT16, sizes)]
    values.append(helper.make_tensor_value_info("timestep", TensorProto.FLOAT16, ["rows"]))
    result = helper.make_tensor_value_info("out_sample", TensorProto.FLOAT16, sizes)
    shape = numpy_helper.from_array(np.asarray([-1, 1, 1, 1], np.int64), "axes")
    nodes = [
        helper.make_node("Reshape", ["timestep", "axes"], ["t"]),
        helper.make_node("Mul", ["sample", "t"], ["out_sample"]),
    ]
    graph = helper.make_graph(nodes, "multiply", values, [result], [shape])
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    onnx.checker.check_model(model)
    gpu = open_gpu(machine)
    denoiser = tx.Denoiser(model.SerializeToString(), device=gpu)
    few, many = (trace_plan(from_config(CONFIG, steps)) for steps in (STEPS, 5 * STEPS))
    # Small enough that 1000 t e stays finite; the same memory for both lengths.
    x = np.full((1, 4, 64, 64), 1e-30, np.float32)

    from .clock import milliseconds

    stream = None if machine.is_rehearsal else gpu.stream

    def run() -> float:
        """A long run less a short one: what begins and ends a request is in both."""
        times = [
            milliseconds(
                Runner(lambda p=p: tx.sample(denoiser, x, p), 1, stream), machine.is_rehearsal
            )
            for p in (few, many)
        ]
        return (times[1] - times[0]) / (4 * STEPS)

    return Runner(run, measures=True)
