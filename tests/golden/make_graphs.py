"""Makes tests/golden/graphs: tiny random networks as different exporters write them.

    python tests/golden/make_graphs.py         # needs torch, diffusers, transformers, onnxscript

The same U-Net comes out of the TorchScript exporter with both attention processors of diffusers,
and out of the dynamo exporter; a smaller relative of SDXL's U-Net, and a float16 one converted by
ONNX Runtime's tool, stand beside it. Names are shortened to keep the files small.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from onnxruntime.transformers.float16 import convert_float_to_float16
from transformers import CLIPTextConfig, CLIPTextModel

FOLDER = Path(__file__).parent / "graphs"
FREE = torch.export.Dim.DYNAMIC


class Plain(torch.nn.Module):
    """Calls a network with positional arguments and returns its first result."""

    def __init__(self, network: torch.nn.Module, method: str = "forward", **fixed: object) -> None:
        super().__init__()
        self.network, self.method, self.fixed = network, method, fixed

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        return getattr(self.network, self.method)(*args, return_dict=False, **self.fixed)[0]


class WithAdded(torch.nn.Module):
    """SDXL's U-Net with its two further inputs."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        states: torch.Tensor,
        text_embeds: torch.Tensor,
        time_ids: torch.Tensor,
    ) -> torch.Tensor:
        added = {"text_embeds": text_embeds, "time_ids": time_ids}
        return self.network(sample, timestep, states, added_cond_kwargs=added, return_dict=False)[0]


def randomized(network: torch.nn.Module) -> torch.nn.Module:
    """Norms with scales and shifts of their own: 1 and 0 would hide mistakes."""
    for module in network.modules():
        if isinstance(module, torch.nn.GroupNorm | torch.nn.LayerNorm):
            torch.nn.init.normal_(module.weight, 1.0, 0.3)
            torch.nn.init.normal_(module.bias, 0.0, 0.3)
    return network.eval()


def unet(**options: object) -> torch.nn.Module:
    torch.manual_seed(11)
    settings = {
        "sample_size": 8,
        "block_out_channels": (6, 12),
        "layers_per_block": 1,
        "norm_num_groups": 3,
        "cross_attention_dim": 10,
        "attention_head_dim": 2,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        **options,
    }
    return randomized(UNet2DConditionModel(**settings))


def vae() -> torch.nn.Module:
    torch.manual_seed(12)
    settings = {"block_out_channels": (6, 12), "norm_num_groups": 3, "latent_channels": 4}
    blocks = {
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    return randomized(AutoencoderKL(**settings, **blocks))


def text_encoder(activation: str) -> torch.nn.Module:
    torch.manual_seed(13)
    config = CLIPTextConfig(
        vocab_size=40,
        hidden_size=12,
        intermediate_size=20,
        num_hidden_layers=2,
        num_attention_heads=3,
        max_position_embeddings=16,
        hidden_act=activation,
        attn_implementation="eager",
        eos_token_id=39,
    )
    return randomized(CLIPTextModel(config))


Axes = Mapping[str, Mapping[int, str]]
UNET_AXES: Axes = {
    "sample": {0: "batch_size", 2: "height", 3: "width"},
    "timestep": {0: "steps"},
    "encoder_hidden_states": {0: "batch_size", 1: "sequence_length"},
}


def export(
    name: str,
    network: torch.nn.Module,
    args: Sequence[torch.Tensor],
    axes: Axes,
    output: str,
    opset: int,
    dynamo: bool = False,
) -> None:
    path = FOLDER / f"{name}.onnx"
    options: dict[str, object] = {"dynamic_axes": {**axes}}
    if dynamo:
        shapes = tuple(dict.fromkeys(names, FREE) for names in axes.values())
        options = {"dynamic_shapes": (shapes,), "external_data": False, "verbose": False}
    with torch.no_grad():
        torch.onnx.export(
            network,
            tuple(args),
            path,
            input_names=list(axes),
            output_names=[output],
            opset_version=opset,
            dynamo=dynamo,
            **options,
        )
    onnx.save(shortened(onnx.load(path)), path)
    print(f"{path.name}: {path.stat().st_size:,} bytes")


def shortened(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without names, metadata and recorded sizes that the passes do not need."""
    graph = model.graph
    kept = {value.name for value in (*graph.input, *graph.output)} | {""}
    names: dict[str, str] = {}

    def short(name: str) -> str:
        return name if name in kept else names.setdefault(name, f"v{len(names)}")

    for tensor in graph.initializer:
        tensor.name = short(tensor.name)
        tensor.ClearField("doc_string")
    for node in graph.node:
        node.input[:] = [short(name) for name in node.input]
        node.output[:] = [short(name) for name in node.output]
        node.ClearField("name")
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    del graph.value_info[:]
    graph.ClearField("metadata_props")
    model.ClearField("metadata_props")
    return model


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    sample, states = torch.randn(2, 4, 8, 12), torch.randn(2, 5, 10)
    inputs = (sample, torch.tensor([7]), states)
    network = unet()
    network.set_attn_processor(AttnProcessor())
    export("unet_baddbmm_14", Plain(network), inputs, UNET_AXES, "out_sample", 14)
    network.set_attn_processor(AttnProcessor2_0())
    for opset in (14, 17):
        export(f"unet_{opset}", Plain(network), inputs, UNET_AXES, "out_sample", opset)
    fixed_step = {**UNET_AXES, "timestep": {}}
    for opset in (18, 23):
        name = f"unet_dynamo_{opset}"
        export(name, Plain(network), inputs, fixed_step, "out_sample", opset, dynamo=True)
    half = convert_float_to_float16(onnx.load(FOLDER / "unet_17.onnx"), keep_io_types=True)
    onnx.save(shortened(half), FOLDER / "unet_17_fp16.onnx")

    xl = unet(
        attention_head_dim=(1, 2),
        transformer_layers_per_block=(1, 1),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + 7,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    axes = {**UNET_AXES, "text_embeds": {0: "batch_size"}, "time_ids": {0: "batch_size"}}
    added = (torch.randn(2, 7), torch.arange(12.0).reshape(2, 6))
    export("unet_xl_17", WithAdded(xl), (*inputs, *added), axes, "out_sample", 17)

    image = {0: "batch_size", 2: "height", 3: "width"}
    latent = (torch.randn(1, 4, 6, 10),)
    for name, opset, dynamo in (("17", 17, False), ("dynamo_18", 18, True)):
        decoder, encoder = Plain(vae(), "decode"), vae()
        export(
            f"vae_decoder_{name}",
            decoder,
            latent,
            {"latent_sample": image},
            "sample",
            opset,
            dynamo,
        )
    moments = torch.nn.Sequential(encoder.encoder, encoder.quant_conv)
    picture = (torch.randn(1, 3, 12, 20),)
    export("vae_encoder_17", moments, picture, {"sample": image}, "latent_parameters", 17)

    ids = (torch.randint(0, 40, (2, 9)),)
    axes = {"input_ids": {0: "batch_size", 1: "sequence_length"}}
    export(
        "text_quick_gelu_14", Plain(text_encoder("quick_gelu")), ids, axes, "last_hidden_state", 14
    )
    export("text_gelu_18", Plain(text_encoder("gelu")), ids, axes, "last_hidden_state", 18)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
