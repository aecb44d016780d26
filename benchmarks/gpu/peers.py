"""Who runs the networks: diffusers as it is, torch.compile, ONNX Runtime from Python, and ours.

Each maker gets a task and gives what is timed; what it lacks or cannot do is an exception, which
the contest writes down.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import networks
from .clock import Runner
from .networks import Machine

GUIDANCE = 7.5
STEPS = 10
CONFIG = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "timestep_spacing": "leading",
}


@dataclass(frozen=True)
class Task:
    """A network at a size.

    Attributes:
        name: In files and tables.
        kind: "unet": steps of a guided loop; "vae": one picture; "turbo": text to picture, one
            step without guidance.
        folder: Where its export is.
        config: Of the U-Net.
        side: Of the latents.
    """

    name: str
    kind: str
    folder: Path
    config: dict[str, Any]
    side: int
    machine: Machine


def eager(task: Task) -> Runner:
    return _torch_runner(task, lambda module: module)


def compiled(task: Task) -> Runner:
    """torch.compile, max-autotune, channels last; a rehearsal traces and compiles nothing."""
    import torch

    options = {"backend": "eager"} if task.machine.is_rehearsal else {"mode": "max-autotune"}

    def prepare(module: Any) -> Any:
        return torch.compile(module.to(memory_format=torch.channels_last), **options)

    return _torch_runner(task, prepare)


def _torch_runner(task: Task, prepare: Callable[[Any], Any]) -> Runner:
    import torch

    machine = task.machine
    if task.kind == "unet":
        model = networks.unet(machine, task.config)
        feeds = networks.unet_feeds(machine, model, task.side)
        fixed = tuple(feeds.values())[2:]
        network = prepare(model)

        def evaluate(sample: Any, timestep: Any) -> Any:
            return networks.call_unet(network, sample, timestep, *fixed)

        return Runner(_inference(lambda: _loop(evaluate, feeds["sample"][:1])), STEPS)
    decoder = networks.vae(machine)
    decoder.decoder = prepare(decoder.decoder)
    latents = machine.tensor(1, 4, task.side, task.side)
    if task.kind == "vae":
        return Runner(_inference(lambda: networks.decode(decoder, latents)))
    encoder = prepare(networks.text_encoder(machine, networks.CLIP_H))
    model = networks.unet(machine, task.config)
    network = prepare(model)
    ids = torch.full((1, 77), 5, device=machine.device)
    timestep = torch.tensor([999], device=machine.device)

    def picture() -> Any:
        text = networks.encode(encoder, ids)
        noise = networks.call_unet(network, latents, timestep, text)
        return networks.decode(decoder, (latents - 14.6 * noise) / 0.18215).float().cpu()

    return Runner(_inference(picture))


def _inference(run: Callable[[], Any]) -> Callable[[], Any]:
    import torch

    def guarded() -> Any:
        with torch.inference_mode():
            return run()

    return guarded


def _loop(evaluate: Callable[[Any, Any], Any], x: Any) -> Any:
    """diffusers' own loop: guidance in torch, its scheduler."""
    import diffusers
    import torch

    scheduler = diffusers.EulerDiscreteScheduler.from_config(CONFIG)
    scheduler.set_timesteps(STEPS, device=x.device)
    x = x * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        both = scheduler.scale_model_input(torch.cat([x, x]), timestep)
        negative, positive = evaluate(both, timestep.reshape(1).long()).chunk(2)
        x = scheduler.step(negative + GUIDANCE * (positive - negative), timestep, x).prev_sample
    return x


class OrtNetwork:
    """A graph on ONNX Runtime from Python: bound to tensors of torch, on its stream."""

    def __init__(self, path: Path, machine: Machine) -> None:
        import onnxruntime
        import torch

        provider: Any = "CPUExecutionProvider"
        if not machine.is_rehearsal:
            stream = str(torch.cuda.current_stream().cuda_stream)
            provider = (
                "CUDAExecutionProvider",
                {"user_compute_stream": stream, "prefer_nhwc": "1"},
            )
        self._session = onnxruntime.InferenceSession(str(path), providers=[provider])
        if not machine.is_rehearsal and self._session.get_providers()[0] != provider[0]:
            raise RuntimeError("onnxruntime: the CUDA provider does not start")
        self._names = [item.name for item in self._session.get_inputs()]
        self._output = self._session.get_outputs()[0].name
        self._machine = machine
        self._results: dict[tuple[int, ...], Any] = {}

    def __call__(self, shape: tuple[int, ...], *given: Any) -> Any:
        """The output, of that shape, into memory that stays the same."""
        import torch

        device = self._machine.device
        if shape not in self._results:
            self._results[shape] = torch.empty(shape, device=device, dtype=self._machine.dtype)
        result = self._results[shape]
        binding = self._session.io_binding()
        for name, tensor in zip(self._names, given, strict=True):
            dtype = str(tensor.dtype).removeprefix("torch.")
            tensor = tensor.contiguous()
            binding.bind_input(
                name, device, 0, np.dtype(dtype), tuple(tensor.shape), tensor.data_ptr()
            )
        dtype = str(result.dtype).removeprefix("torch.")
        binding.bind_output(self._output, device, 0, np.dtype(dtype), shape, result.data_ptr())
        self._session.run_with_iobinding(binding)
        return result


def plain_ort(task: Task) -> Runner:
    """ONNX Runtime's CUDA provider on the export, from Python."""
    import torch

    machine, folder = task.machine, task.folder
    latents = machine.tensor(1, 4, task.side, task.side)
    factor = 2 if machine.is_rehearsal else 8
    shape = (1, 3, factor * task.side, factor * task.side)
    if task.kind == "unet":
        network = OrtNetwork(folder / "unet/model.onnx", machine)
        config = networks.unet(Machine(True), task.config).config if machine.is_rehearsal else None
        feeds = networks.unet_feeds(machine, _Configured(config or task.config), task.side)
        fixed = tuple(feeds.values())[2:]

        def evaluate(sample: Any, timestep: Any) -> Any:
            return network(tuple(sample.shape), sample, timestep, *fixed)

        return Runner(_inference(lambda: _loop(evaluate, feeds["sample"][:1])), STEPS)
    decoder = OrtNetwork(folder / "vae_decoder/model.onnx", machine)
    if task.kind == "vae":
        return Runner(lambda: decoder(shape, latents))
    network = OrtNetwork(folder / "unet/model.onnx", machine)
    encoder = OrtNetwork(folder / "text_encoder/model.onnx", machine)
    width = networks.SMALL_CLIP if machine.is_rehearsal else networks.CLIP_H
    ids = torch.full((1, 77), 5, device=machine.device)
    timestep = torch.tensor([999], device=machine.device)

    def picture() -> Any:
        text = encoder((1, 77, width["hidden_size"]), ids)
        noise = network(tuple(latents.shape), latents, timestep, text)
        return decoder(shape, (latents - 14.6 * noise) / 0.18215).float().cpu()

    return Runner(_inference(picture))


class _Configured:
    """Stands for a network whose configuration alone is asked for."""

    def __init__(self, config: Any) -> None:
        values = dict(config)
        values.setdefault("addition_embed_type", None)
        self.config = type("Config", (), values)


def ours(task: Task) -> Runner:
    """The engine: graphs compiled for the GPU where that is possible, else as exported."""
    import textopia_fast as tx
    from textopia_fast.samplers import from_config, trace_plan

    machine = task.machine
    gpu = open_gpu(machine)
    stream = None if machine.is_rehearsal else gpu.stream
    if task.kind == "turbo":
        with _opening(gpu):
            pipe = tx.Pipeline.from_pretrained(task.folder, device="cuda", **_precision(machine))
        given = {"num_inference_steps": 1, "guidance_scale": 1.0, "seed": 1, "output_type": "np"}
        if not machine.is_rehearsal:
            given |= {"height": 512, "width": 512}
        return Runner(lambda: pipe("a cat", **given), stream=pipe_stream(pipe, machine))
    if task.kind == "vae":
        session = _source(task, gpu).open("vae_decoder")
        side = task.side
        dtype = session.inputs[0].dtype
        latents = machine.tensor(1, 4, side, side).cpu().numpy().astype(dtype)
        return Runner(lambda: session.run({"latent_sample": latents}), stream=stream)
    config = networks.unet(Machine(True), task.config).config if machine.is_rehearsal else None
    feeds = networks.unet_feeds(machine, _Configured(config or task.config), task.side)
    shapes = tuple((name, tuple(feed.shape)) for name, feed in feeds.items() if feed.ndim > 1)
    denoiser = _denoiser(task, gpu, shapes)
    program = trace_plan(from_config(CONFIG, STEPS))
    x = feeds["sample"][:1].float() * program.initial_scale
    halves = [
        {name: feeds[name][row : row + 1] for name in denoiser.conditioning_names} for row in (1, 0)
    ]
    return Runner(
        lambda: tx.sample(denoiser, x, program, *halves, guidance=GUIDANCE), STEPS, stream
    )


@functools.cache
def open_gpu(machine: Machine) -> Any:
    """The first GPU with all its kernels; in a rehearsal the fake driver's."""
    if machine.is_rehearsal:
        from tests.support.fake_cuda import FakeCuda

        return FakeCuda().gpu()
    from textopia_fast.devices import open_device

    return open_device("cuda")


def pipe_stream(pipe: Any, machine: Machine) -> int | None:
    return None if machine.is_rehearsal else pipe._open_graphs().batching.gpu.stream


def _precision(machine: Machine) -> dict[str, str]:
    return {"precision": "fp32" if machine.is_rehearsal else "auto"}


class _opening:  # noqa: N801 - used as a function
    """In a rehearsal a pipeline that asks for a GPU gets this one."""

    def __init__(self, gpu: Any) -> None:
        self._gpu = gpu

    def __enter__(self) -> None:
        from textopia_fast import stages

        self._open, stages.open_device = stages.open_device, lambda device: self._gpu

    def __exit__(self, *_: object) -> None:
        from textopia_fast import stages

        stages.open_device = self._open


def _source(task: Task, gpu: Any) -> Any:
    from textopia_fast.engines import GraphSource
    from textopia_fast.graph import compile_directory
    from textopia_fast.models import open_directory

    directory = open_directory(task.folder)
    engine = None if task.machine.is_rehearsal else compile_directory(directory, "cuda-fp16")
    return GraphSource(directory, engine, None, gpu)


def _denoiser(task: Task, gpu: Any, shapes: Any) -> Any:
    import textopia_fast as tx

    if (task.folder / "model_index.json").exists():
        return _source(task, gpu).open_denoiser()(None)(shapes)
    return tx.Denoiser(task.folder / "unet/model.onnx", device=gpu)
