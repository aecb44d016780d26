"""Exports the U-Net of Stable Diffusion XL at its true size with random weights, in float16.

    python benchmarks/export_sdxl.py DIRECTORY  # 5.2 GB; takes 13 GB of memory
    python benchmarks/export_openvino.py DIRECTORY  # for the peer
    python benchmarks/run.py unet_step --model DIRECTORY

Its border is float32. `reference.npy` beside the graph is the result of the same weights in
float32 for the inputs that `unet_step` gives: float32 weights would need 20 GB in ONNX Runtime.
"""

from __future__ import annotations

import argparse
import gc
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.export_sd15 import SEED, Export, with_lively_norms, write  # noqa: E402
from benchmarks.sd15.case import REFERENCE, WIDENED  # noqa: E402
from benchmarks.unet_step.case import Case  # noqa: E402

INPUTS = ("sample", "timestep", "encoder_hidden_states", "text_embeds", "time_ids")


def build_unet() -> Any:
    """The U-Net of SDXL base, in float32 with weights that float16 can hold."""
    import diffusers
    import torch

    torch.manual_seed(SEED)
    unet = diffusers.UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),  # diffusers' name for the number of heads
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    with torch.no_grad():
        for weight in with_lively_norms(unet).parameters():
            weight.copy_(weight.half())
    return unet


def call(unet: Any, *arguments: Any) -> Any:
    """The U-Net in its own element type, of INPUTS in float32; gives float32."""
    sample, timestep, *text = arguments
    sample, encoder_hidden_states, text_embeds, time_ids = (
        x.to(unet.dtype) for x in (sample, *text)
    )
    added = {"text_embeds": text_embeds, "time_ids": time_ids}
    result = unet(
        sample, timestep, encoder_hidden_states, added_cond_kwargs=added, return_dict=False
    )
    return result[0].float()


def export(unet: Any) -> Export:
    """The U-Net as `write` takes it."""
    import torch

    class Called(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.unet = unet

        def forward(self, *arguments: Any) -> Any:
            return call(self.unet, *arguments)

    image = {0: "batch_size", 2: "height", 3: "width"}
    return Export(
        Called(),
        (
            torch.randn(2, 4, 16, 24),
            torch.tensor([500]),
            torch.randn(2, 77, 2048),
            torch.randn(2, 1280),
            torch.ones(2, 6),
        ),
        list(INPUTS),
        ["out_sample"],
        {
            "sample": image,
            "timestep": {0: "steps"},
            "encoder_hidden_states": {0: "batch_size", 1: "sequence_length"},
            "text_embeds": {0: "batch_size"},
            "time_ids": {0: "batch_size"},
            "out_sample": image,
        },
        dict(unet.config),
    )


def write_widened(folder: Path) -> None:
    """Writes a second graph over the same weights that casts them to float32 and computes in it.

    OpenVINO can keep weights that are cast so as they are; of a graph in float16 it makes float32
    ones, and takes 20 GB.
    """
    import onnx_ir as ir

    half, single = ir.DataType.FLOAT16, ir.DataType.FLOAT
    model = ir.load(folder / "model.onnx")
    graph = model.graph
    casts = []
    for value in tuple(graph.initializers.values()):
        if value.dtype == half:
            cast = ir.node("Cast", [value], {"to": single})
            cast.outputs[0].name = f"{value.name}.float32"
            value.replace_all_uses_with(cast.outputs[0])
            cast.replace_input_with(0, value)
            casts.append(cast)
    for node in graph:
        for output in node.outputs:
            if output.dtype == half:
                output.dtype = single
        target, stored = node.attributes.get("to"), node.attributes.get("value")
        if node.op_type == "Cast" and target.value == half:
            node.attributes["to"] = ir.AttrInt64("to", single)
        if stored is not None and stored.value.dtype == half:
            widened = ir.tensor(stored.value.numpy().astype(np.float32))
            node.attributes["value"] = ir.AttrTensor("value", widened)
    graph.insert_before(graph[0], casts)
    ir.save(model, folder / WIDENED)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    warnings.simplefilter("ignore")
    import torch

    unet, folder = build_unet(), directory / "unet"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(unet.to_json_string())  # which the case reads
    feeds = Case(directory, threads=0).feeds()
    with torch.inference_mode():
        result = call(unet, *(torch.from_numpy(feeds[name]) for name in INPUTS))
    np.save(folder / REFERENCE, result.numpy())
    unet.half()
    gc.collect()
    write(export(unet), folder)
    write_widened(folder)
    print(folder)


if __name__ == "__main__":
    main()
