"""Exports Stable Diffusion 1.5 at its true size with random weights: what `unet_step` measures.

    python benchmarks/export_sd15.py DIRECTORY  # 4.3 GB; needs torch, diffusers, transformers
    python benchmarks/run.py unet_step --model DIRECTORY

The sizes are those of the published configuration; speed and memory do not depend on the weights,
as long as they are not zero. The layout is that of diffusers' ONNX exports.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TINY = Path(__file__).parent.parent / "tests" / "golden" / "tiny_sd"
SEED = 0
OPSET = 17


@dataclass(frozen=True)
class Export:
    """One network: what it is called with, and the names of its free sizes."""

    module: Any
    arguments: tuple
    inputs: list[str]
    outputs: list[str]
    sizes: dict[str, dict[int, str]]
    config: dict[str, Any] = field(default_factory=dict)


def build_unet() -> Any:
    """The U-Net, in eval mode; every call gives the same weights."""
    import diffusers
    import torch

    torch.manual_seed(SEED)
    # block_out_channels 320, 640, 1280, 1280 and 2 layers per block are the class's defaults
    unet = diffusers.UNet2DConditionModel(
        sample_size=64, cross_attention_dim=768, attention_head_dim=8
    )
    return with_lively_norms(unet)


def build_vae() -> Any:
    """The VAE, in eval mode; every call gives the same weights."""
    import diffusers
    import torch

    torch.manual_seed(SEED)
    vae = diffusers.AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        sample_size=512,
    )
    return with_lively_norms(vae)


def _build_text_encoder() -> Any:
    import torch
    import transformers

    torch.manual_seed(SEED)
    config = transformers.CLIPTextConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        attn_implementation="eager",
    )
    return with_lively_norms(transformers.CLIPTextModel(config))


def with_lively_norms(model: Any) -> Any:
    """Norms start at gamma 1 and beta 0, which a compiler could drop."""
    import torch

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (torch.nn.GroupNorm, torch.nn.LayerNorm)):
                module.weight.normal_(1.0, 0.1)
                module.bias.normal_(0.0, 0.1)
    return model.eval().requires_grad_(False)


def exports() -> dict[str, Any]:
    """Makers of the four networks by name."""
    import torch

    class Call(torch.nn.Module):
        def __init__(self, model: Any, call: Any) -> None:
            super().__init__()
            self.model, self.call = model, call

        def forward(self, *arguments: Any) -> Any:
            return self.call(self.model, *arguments)

    image = {0: "batch_size", 2: "height", 3: "width"}
    result = {0: "batch_size", 2: "out_height", 3: "out_width"}
    text = {0: "batch_size", 1: "sequence_length"}
    vae_config = {"scaling_factor": 0.18215, "block_out_channels": [128, 256, 512, 512]}

    def unet() -> Export:
        model = build_unet()
        return Export(
            Call(model, lambda m, *a: m(*a, return_dict=False)[0]),
            (torch.randn(2, 4, 16, 24), torch.tensor([500]), torch.randn(2, 77, 768)),
            ["sample", "timestep", "encoder_hidden_states"],
            ["out_sample"],
            {
                "sample": image,
                "timestep": {0: "steps"},
                "encoder_hidden_states": text,
                "out_sample": image,
            },
            dict(model.config),
        )

    def vae_decoder() -> Export:
        return Export(
            Call(build_vae(), lambda m, x: m.decode(x, return_dict=False)[0]),
            (torch.randn(1, 4, 8, 12),),
            ["latent_sample"],
            ["sample"],
            {"latent_sample": image, "sample": result},
            vae_config,
        )

    def vae_encoder() -> Export:
        return Export(
            Call(build_vae(), lambda m, x: m.encode(x, return_dict=False)[0].parameters),
            (torch.randn(1, 3, 64, 96),),
            ["sample"],
            ["latent_parameters"],
            {"sample": image, "latent_parameters": result},
            vae_config,
        )

    def text_encoder() -> Export:
        model = _build_text_encoder()
        return Export(
            Call(model, lambda m, ids: m(input_ids=ids).last_hidden_state),
            (torch.randint(0, 1000, (2, 77)),),
            ["input_ids"],
            ["last_hidden_state"],
            {"input_ids": text, "last_hidden_state": text},
            model.config.to_dict(),
        )

    return {maker.__name__: maker for maker in (unet, vae_decoder, vae_encoder, text_encoder)}


def write(export: Export, folder: Path) -> None:
    """Writes `model.onnx`, its weights in one file beside it, and `config.json`."""
    import onnx_ir as ir
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as parts, torch.no_grad():
        path = Path(parts) / "model.onnx"
        torch.onnx.export(
            export.module,
            export.arguments,
            str(path),
            input_names=export.inputs,
            output_names=export.outputs,
            dynamic_axes=export.sizes,
            opset_version=OPSET,
            dynamo=False,
        )
        # one weight at a time
        ir.save(ir.load(path), folder / "model.onnx", external_data="model.onnx_data")
    (folder / "config.json").write_text(json.dumps(export.config, indent=1, default=str))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    warnings.simplefilter("ignore")
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(TINY / "model_index.json", directory)
    for name in ("scheduler", "tokenizer"):  # neither counts for speed
        shutil.copytree(TINY / name, directory / name, dirs_exist_ok=True)
    for name, make in exports().items():
        write(make(), directory / name)
        print(directory / name)


if __name__ == "__main__":
    main()
