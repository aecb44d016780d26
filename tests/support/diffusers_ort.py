"""diffusers' own pipeline over the graphs of a model directory, run by onnxruntime from Python.

This is what optimum does. It makes a comparison fair: the networks are the same to the bit and
only the loop differs. Needs torch, diffusers, transformers and onnxruntime.
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from transformers import CLIPTokenizer

DTYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
}


class Graph:
    """One session; called with tensors by name, gives tensors."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self.inputs = {i.name: (DTYPES[i.type], len(i.shape)) for i in self.session.get_inputs()}

    def __call__(self, **tensors: Any) -> list[torch.Tensor]:
        feeds = {}
        for name, (dtype, rank) in self.inputs.items():
            value = np.asarray(tensors[name], dtype=dtype)
            feeds[name] = value if value.ndim == rank else np.full([1] * rank, value, dtype)
        outputs = self.session.run(None, feeds)
        return [torch.from_numpy(value).float() for value in outputs]


def config_of(directory: Path, part: str) -> dict[str, Any]:
    return json.loads((directory / part / "config.json").read_text())


class TextEncoder(torch.nn.Module):
    """Stands in for CLIPTextModel."""

    dtype = torch.float32
    device = torch.device("cpu")

    def __init__(self, directory: Path, threads: int | None) -> None:
        super().__init__()
        self.graph = Graph(directory / "text_encoder" / "model.onnx", threads)
        self.config = SimpleNamespace(**config_of(directory, "text_encoder"))

    def forward(self, input_ids, attention_mask=None):
        return self.graph(input_ids=input_ids.numpy())


class Unet(UNet2DConditionModel):
    """Stands in for the network of that class; has its config and none of its layers."""

    def __init__(self, directory: Path, threads: int | None) -> None:
        torch.nn.Module.__init__(self)
        self.graph = Graph(directory / "unet" / "model.onnx", threads)
        self._internal_dict = _frozen(config_of(directory, "unet"))

    dtype = property(lambda _: torch.float32)
    device = property(lambda _: torch.device("cpu"))

    def forward(self, sample, timestep, encoder_hidden_states=None, timestep_cond=None, **_):
        feeds = {"sample": sample.numpy(), "timestep": float(timestep)}
        if timestep_cond is not None:
            feeds["timestep_cond"] = timestep_cond.numpy()
        return self.graph(**feeds, encoder_hidden_states=encoder_hidden_states.numpy())


class Vae(AutoencoderKL):
    """Stands in for the decoder and, where a directory has it, the encoder."""

    def __init__(self, directory: Path, threads: int | None) -> None:
        torch.nn.Module.__init__(self)
        self.graph = Graph(directory / "vae_decoder" / "model.onnx", threads)
        encoder = directory / "vae_encoder" / "model.onnx"
        self.encoder_graph = Graph(encoder, threads) if encoder.exists() else None
        self._internal_dict = _frozen(config_of(directory, "vae_decoder"))

    dtype = property(lambda _: torch.float32)
    device = property(lambda _: torch.device("cpu"))

    def decode(self, latents, return_dict=True, generator=None):
        return self.graph(latent_sample=latents.numpy())

    def encode(self, x, return_dict=True):
        (parameters,) = self.encoder_graph(sample=x.numpy())
        return AutoencoderKLOutput(latent_dist=DiagonalGaussianDistribution(parameters))


def _frozen(config: dict[str, Any]):
    from diffusers.configuration_utils import FrozenDict

    config = {key: value for key, value in config.items() if not key.startswith("_")}
    return FrozenDict(config)


def load(
    directory: str | Path,
    scheduler: Any,
    threads: int | None = None,
    pipeline: type = StableDiffusionPipeline,
) -> Any:
    """A pipeline of that class over a directory with the given diffusers scheduler."""
    directory = Path(directory)
    pipe = pipeline(
        vae=Vae(directory, threads),
        text_encoder=TextEncoder(directory, threads),
        tokenizer=CLIPTokenizer.from_pretrained(directory / "tokenizer"),
        unet=Unet(directory, threads),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
