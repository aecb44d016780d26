"""Stage 4: writes the trained model as a diffusers-ONNX directory, laid out as by optimum.

    python training/export.py [--work training/work] [--output python/.../models/tiny_shapes]

Weights are stored as float16 initializers, each followed by a Cast, so the files are half as large;
graph inputs, outputs and all arithmetic stay float32 (ONNX Runtime folds the Casts when it loads).
"""

from __future__ import annotations

import argparse
import logging
import shutil
import time
import warnings
from pathlib import Path

import diffusers
import numpy as np
import onnx
import onnxruntime as ort
import torch
from diffusers import DDIMScheduler
from diffusers.models.attention_processor import AttnProcessor2_0
from onnx import TensorProto, helper, numpy_helper

from make_latents import load_vae
from networks import LATENT_SIZE, MAX_TOKENS, TEXT_WIDTH
from objective import BETA_END, BETA_START, STEPS
from parallel import log, write_json
from tokenizer import build_tokenizer
from train_denoiser import Denoiser
from world import PICTURE_SIZE

OPSET = 18
SMALLEST_HALVED = 64  # weights with fewer elements stay float32: nothing to gain
DEFAULT_OUTPUT = Path(__file__).parents[1] / "python/textopia_fast/models/tiny_shapes"


class TextEncoder(torch.nn.Module):
    """input_ids -> last_hidden_state, pooler_output."""

    def __init__(self, text):
        super().__init__()
        self.text = text

    def forward(self, input_ids):
        out = self.text(input_ids=input_ids)
        return out.last_hidden_state, out.pooler_output


class UNet(torch.nn.Module):
    """sample, timestep (rank 0), encoder_hidden_states -> out_sample."""

    def __init__(self, unet):
        super().__init__()
        self.unet = unet

    def forward(self, sample, timestep, encoder_hidden_states):
        return self.unet(sample, timestep, encoder_hidden_states, return_dict=False)[0]


class VaeEncoder(torch.nn.Module):
    """sample -> latent_parameters: mean and log-variance, one after the other."""

    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, sample):
        return self.vae.quant_conv(self.vae.encoder(sample))


class VaeDecoder(torch.nn.Module):
    """latent_sample, already divided by the scaling factor -> sample."""

    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, latent_sample):
        return self.vae.decoder(self.vae.post_quant_conv(latent_sample))


def halve_weights(model: onnx.ModelProto) -> None:
    """Stores large float32 initializers as float16 and restores them by a Cast of the old name."""
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < SMALLEST_HALVED:
            continue
        name, half = tensor.name, numpy_helper.to_array(tensor).astype(np.float16)
        if not np.isfinite(half).all():
            raise ValueError(f"[export] weight {name} does not fit into float16")
        tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.float16"))
        node = helper.make_node("Cast", [tensor.name], [name], f"{name}.cast", to=TensorProto.FLOAT)
        casts.append(node)
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def export_graph(module, folder: Path, config: dict, inputs: dict, outputs: dict, axes: dict):
    """Exports one network, halves its weights, and compares ONNX Runtime with torch on new shapes.

    Args:
        module: The network; its forward takes the inputs in this order.
        folder: Where model.onnx and config.json go.
        config: The content of config.json.
        inputs: Example tensors by name; batch 2 for those with a batch axis.
        outputs: Output names, each with its dynamic axes.
        axes: Dynamic axes of the inputs by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    module.half().float()  # round the weights as the file will, so that the comparison is exact
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer warns of every Python branch in diffusers
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes={**axes, **outputs},
            opset_version=OPSET,
            dynamo=False,
        )
    model = onnx.load(path)
    halve_weights(model)
    del model.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
    onnx.checker.check_model(model)
    onnx.save(model, path)
    write_json(folder / "config.json", config)

    start = time.perf_counter()
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    created = time.perf_counter() - start
    # One picture more than in the trace: a batch size burnt into the graph would show.
    grown = {k: torch.cat([v, v[:1]]) if k in axes else v for k, v in inputs.items()}
    with torch.no_grad():
        expected = module(*grown.values())
    expected = expected if isinstance(expected, tuple) else (expected,)
    got = session.run(None, {k: v.numpy() for k, v in grown.items()})
    error = max(float(np.abs(g - e.numpy()).max()) for g, e in zip(got, expected, strict=True))
    log(
        f"{folder.name}: {path.stat().st_size / 1e6:.2f} MB, session in {1e3 * created:.0f} ms, "
        f"largest difference from torch {error:.1e}"
    )


def config_of(network) -> dict:
    """A network's configuration as diffusers or transformers would save it."""
    config = network.config
    if hasattr(config, "to_diff_dict"):
        return {**config.to_diff_dict(), "architectures": [type(network).__name__]}
    kept = {k: v for k, v in config.items() if not k.startswith("_") or k == "_class_name"}
    names = {"_class_name": type(network).__name__, "_diffusers_version": diffusers.__version__}
    return {**names, **kept}


def write_pipeline_files(output: Path) -> None:
    """model_index.json, the scheduler and the tokenizer."""
    scheduler = DDIMScheduler(
        num_train_timesteps=STEPS,
        beta_start=BETA_START,
        beta_end=BETA_END,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )
    scheduler.save_pretrained(output / "scheduler")
    build_tokenizer(output / "tokenizer")
    index = {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": diffusers.__version__,
        "_generation_defaults": {"guidance_scale": 4.0, "num_inference_steps": 20},
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    write_json(output / "model_index.json", index)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT)
    options = parser.parse_args()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    torch.manual_seed(0)
    stored = torch.load(options.work / "denoiser.pt")
    scale = torch.load(options.work / "latents.pt", mmap=True)["scale"]
    denoiser = Denoiser(stored["vocabulary"]).eval()
    denoiser.load_state_dict(stored["state"], strict=False)
    vae = load_vae(options.work)
    vae.register_to_config(scaling_factor=scale)
    for network in (denoiser.unet, vae):  # the graphs that users' own exports have
        network.set_attn_processor(AttnProcessor2_0())
    log(f"weights of step {stored['step']}")

    final = options.output
    options.output = final.with_name(f".{final.name}.partial")  # nobody meets half a model
    shutil.rmtree(options.output, ignore_errors=True)
    latent = torch.randn(2, 4, LATENT_SIZE, LATENT_SIZE)
    image_axes = {0: "batch_size", 2: "height", 3: "width"}
    text_axes = {0: "batch_size", 1: "sequence_length"}
    ids = torch.randint(0, stored["vocabulary"], (2, MAX_TOKENS))
    export_graph(
        TextEncoder(denoiser.text),
        options.output / "text_encoder",
        config_of(denoiser.text),
        {"input_ids": ids},
        {"last_hidden_state": text_axes, "pooler_output": {0: "batch_size"}},
        {"input_ids": text_axes},
    )
    export_graph(
        UNet(denoiser.unet),
        options.output / "unet",
        config_of(denoiser.unet),
        {
            "sample": latent,
            "timestep": torch.tensor(500.0),
            "encoder_hidden_states": torch.randn(2, MAX_TOKENS, TEXT_WIDTH),
        },
        {"out_sample": image_axes},
        {"sample": image_axes, "encoder_hidden_states": text_axes},
    )
    export_graph(
        VaeEncoder(vae),
        options.output / "vae_encoder",
        config_of(vae),
        {"sample": torch.rand(2, 3, PICTURE_SIZE, PICTURE_SIZE) * 2 - 1},
        {"latent_parameters": {0: "batch_size", 2: "latent_height", 3: "latent_width"}},
        {"sample": image_axes},
    )
    export_graph(
        VaeDecoder(vae),
        options.output / "vae_decoder",
        config_of(vae),
        {"latent_sample": latent},
        {"sample": image_axes},
        {"latent_sample": {0: "batch_size", 2: "latent_height", 3: "latent_width"}},
    )
    write_pipeline_files(options.output)
    total = sum(f.stat().st_size for f in options.output.rglob("*") if f.is_file())
    shutil.rmtree(final, ignore_errors=True)
    options.output.rename(final)
    log(f"{final}: {total / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
