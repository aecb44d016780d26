"""The networks that are measured: diffusers' configurations of Stable Diffusion 1.5, SDXL and
SD-Turbo with random weights, made on the machine that measures, and their exports in 16 bits."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.export_sd15 import SEED, TINY, Export, with_lively_norms, write

_XL_BLOCKS = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
SD15 = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
XL = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": _XL_BLOCKS,
    "up_block_types": tuple(name.replace("Down", "Up") for name in reversed(_XL_BLOCKS)),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
TURBO = {
    "sample_size": 64,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
}
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23}
# What a rehearsal takes instead: the same layers, few and narrow.
SMALL = {"block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 8}
SMALL_UNET = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "transformer_layers_per_block": 1,
    "attention_head_dim": 4,
    "cross_attention_dim": 32,
}
SMALL_VAE = {
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
}
SMALL_CLIP = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}


@dataclass(frozen=True)
class Machine:
    """Where it runs: a GPU in float16, or in a rehearsal the CPU in float32 with small sizes."""

    is_rehearsal: bool

    @property
    def device(self) -> str:
        return "cpu" if self.is_rehearsal else "cuda"

    @property
    def dtype(self) -> Any:
        import torch

        return torch.float32 if self.is_rehearsal else torch.float16

    def tensor(self, *shape: int, seed: int = 1) -> Any:
        import torch

        drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
        return drawn.to(self.device, self.dtype)


def unet(machine: Machine, config: dict[str, Any]) -> Any:
    import diffusers

    if machine.is_rehearsal:
        extra = {"addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 80}
        small = {**SMALL, **SMALL_UNET, **(extra if "addition_embed_type" in config else {})}
        config = {**config, **small, "sample_size": 8}
    return _made(machine, lambda: diffusers.UNet2DConditionModel(**config))


def vae(machine: Machine) -> Any:
    import diffusers

    config = {**VAE, **SMALL, **SMALL_VAE} if machine.is_rehearsal else VAE
    return _made(machine, lambda: diffusers.AutoencoderKL(**config))


def text_encoder(machine: Machine, config: dict[str, Any]) -> Any:
    import transformers

    config = SMALL_CLIP if machine.is_rehearsal else config
    heads = max(config["hidden_size"] // 64, 2)
    made = transformers.CLIPTextConfig(
        **config, num_attention_heads=heads, attn_implementation="sdpa"
    )
    return _made(machine, lambda: transformers.CLIPTextModel(made))


def _made(machine: Machine, make: Callable[[], Any]) -> Any:
    import torch

    torch.manual_seed(SEED)
    with torch.device(machine.device):  # billions of numbers are drawn where it is fast
        model = make()
    return with_lively_norms(model).to(machine.device, machine.dtype)


def unet_feeds(machine: Machine, model: Any, side: int, rows: int = 2) -> dict[str, Any]:
    """Inputs of a U-Net by name; SDXL's takes two more."""
    import torch

    width = model.config.cross_attention_dim
    feeds = {
        "sample": machine.tensor(rows, 4, side, side),
        "timestep": torch.tensor([500], device=machine.device),
        "encoder_hidden_states": machine.tensor(rows, 77, width, seed=2),
    }
    if model.config.addition_embed_type == "text_time":
        size = model.config.addition_time_embed_dim * 6
        pooled = model.config.projection_class_embeddings_input_dim - size
        feeds["text_embeds"] = machine.tensor(rows, pooled, seed=3)
        ids = torch.tensor([[1024.0, 1024, 0, 0, 1024, 1024]], device=machine.device)
        feeds["time_ids"] = ids.to(machine.dtype).repeat(rows, 1)
    return feeds


def call_unet(model: Any, *arguments: Any) -> Any:
    """The network with its inputs in the order of `unet_feeds`."""
    added = None
    if len(arguments) > 3:
        added = dict(zip(("text_embeds", "time_ids"), arguments[3:], strict=True))
    return model(*arguments[:3], added_cond_kwargs=added, return_dict=False)[0]


def export(machine: Machine, name: str, folder: Path) -> None:
    """Writes "sd15", "turbo" (whole model directories) or "sdxl" (its U-Net) in 16 bits."""
    if (folder / "done").exists():
        return
    config = {"sd15": SD15, "sdxl": XL, "turbo": TURBO}[name]
    model = unet(machine, config)
    feeds = unet_feeds(machine, model, 8 if machine.is_rehearsal else 16)
    image, result = {0: "batch_size", 2: "height", 3: "width"}, {0: "batch_size"}
    text = {0: "batch_size", 1: "sequence_length"}
    sizes: dict[str, dict[int, str]] = {key: {0: "batch_size"} for key in feeds}
    sizes |= {"sample": image, "timestep": {0: "steps"}, "encoder_hidden_states": text}
    sizes["out_sample"] = image
    arguments = tuple(feeds.values())
    facts = dict(model.config)
    write(
        _exported(model, call_unet, arguments, list(feeds), ["out_sample"], sizes, facts),
        folder / "unet",
    )
    del model
    if name != "sdxl":
        shutil.copy(TINY / "model_index.json", folder)
        for part in ("scheduler", "tokenizer"):
            shutil.copytree(TINY / part, folder / part, dirs_exist_ok=True)
        decoder = vae(machine)
        z = machine.tensor(1, 4, 8, 8)
        sizes = {"latent_sample": image, "sample": result | {2: "out_height", 3: "out_width"}}
        facts = {"scaling_factor": 0.18215, "block_out_channels": decoder.config.block_out_channels}
        write(
            _exported(decoder, decode, (z,), ["latent_sample"], ["sample"], sizes, facts),
            folder / "vae_decoder",
        )
        import torch

        encoder = text_encoder(machine, CLIP_H if name == "turbo" else CLIP_L)
        ids = torch.randint(0, 1000, (2, 77), device=machine.device)
        sizes = {"input_ids": text, "last_hidden_state": text}
        facts = encoder.config.to_dict()
        write(
            _exported(encoder, encode, (ids,), ["input_ids"], ["last_hidden_state"], sizes, facts),
            folder / "text_encoder",
        )
    (folder / "done").touch()


def decode(model: Any, latents: Any) -> Any:
    return model.decode(latents, return_dict=False)[0]


def encode(model: Any, ids: Any) -> Any:
    return model(input_ids=ids).last_hidden_state


def _exported(
    model: Any,
    call: Callable[..., Any],
    arguments: tuple[Any, ...],
    inputs: list[str],
    outputs: list[str],
    sizes: dict[str, dict[int, str]],
    config: dict[str, Any],
) -> Export:
    import torch

    class Call(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *given: Any) -> Any:
            return call(self.model, *given)

    return Export(Call(), arguments, inputs, outputs, sizes, config)
