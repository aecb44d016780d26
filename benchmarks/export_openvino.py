"""Converts an exported model to what OpenVINO GenAI opens, into its folder `openvino`.

    python benchmarks/export_openvino.py DIRECTORY  # needs openvino_genai, openvino_tokenizers

DIRECTORY is what export_sd15.py makes. Weights are kept in float16, as optimum-intel keeps them;
sizes stay free, for the pipeline's own `reshape`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

PARTS = ("text_encoder", "unet", "vae_decoder")
# what OpenVINO GenAI looks for in model_index.json
CLASSES = {
    "text_encoder": ("transformers", "CLIPTextModel"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "unet": ("diffusers", "UNet2DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
}


def convert(directory: Path, target: Path) -> None:
    """Writes `target`, a folder for `openvino_genai.Text2ImagePipeline`."""
    import openvino
    import transformers
    from openvino_tokenizers import convert_tokenizer

    for name in PARTS:
        folder = target / name
        folder.mkdir(parents=True, exist_ok=True)
        model = openvino.convert_model(directory / name / "model.onnx")
        openvino.save_model(model, folder / "openvino_model.xml", compress_to_fp16=True)
        copy_known(directory / name / "config.json", folder)
        print(folder)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(directory / "tokenizer")
    path = target / "tokenizer" / "openvino_tokenizer.xml"
    openvino.save_model(convert_tokenizer(tokenizer), path)
    scheduler = copy_known(directory / "scheduler" / "scheduler_config.json", target / "scheduler")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "scheduler": ("diffusers", scheduler["_class_name"]),
        **CLASSES,
    }
    (target / "model_index.json").write_text(json.dumps(index, indent=1))


def copy_known(config: Path, folder: Path) -> dict[str, Any]:
    """Copies a configuration without its nulls, which OpenVINO GenAI does not read."""
    given = json.loads(config.read_text())
    known = {key: value for key, value in given.items() if value is not None}
    folder.mkdir(exist_ok=True)
    (folder / config.name).write_text(json.dumps(known, indent=1))
    return known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    convert(directory, directory / "openvino")


if __name__ == "__main__":
    main()
