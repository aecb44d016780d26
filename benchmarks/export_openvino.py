"""Converts an exported model to what OpenVINO GenAI opens, into its folder `openvino`.

    python benchmarks/export_openvino.py DIRECTORY  # needs openvino_genai, openvino_tokenizers

DIRECTORY is what export_sd15.py makes, or export_sdxl.py: its U-Net only, in 11 GB of memory.
Weights are kept in float16, as optimum-intel keeps them; sizes stay free, for the pipeline's own
`reshape`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.sd15.case import WIDENED  # noqa: E402 - needs the path above

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

    for name in (name for name in PARTS if (directory / name).is_dir()):
        folder = target / name
        folder.mkdir(parents=True, exist_ok=True)
        widened = directory / name / WIDENED
        graph = widened if widened.is_file() else directory / name / "model.onnx"
        model = openvino.convert_model(graph)
        openvino.save_model(model, folder / "openvino_model.xml", compress_to_fp16=True)
        copy_known(directory / name / "config.json", folder)
        print(folder)
    if (directory / "tokenizer").is_dir():
        convert_rest(directory, target)


def convert_rest(directory: Path, target: Path) -> None:
    """Tokenizer, scheduler and index of a whole pipeline."""
    import openvino
    import transformers
    from openvino_tokenizers import convert_tokenizer

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
