"""Makes tests/golden/tiny_sd: a Stable Diffusion small enough to commit, as exported to ONNX.

Components are diffusers' and transformers' own classes with random weights. The last convolution
of the U-Net is then fitted in closed form to predict noise, so that trajectories behave as those
of a trained network do: a small error stays small from step to step.

    python tests/golden/make_tiny_sd.py            # needs torch, diffusers, transformers, onnx

make_tiny_sd_images.py makes the reference pictures from the same components.
"""

from __future__ import annotations

import collections
import itertools
import json
import shutil
import tempfile
import warnings
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

HERE = Path(__file__).parent
DIRECTORY = HERE / "tiny_sd"
WORDS = [
    "a",
    "an",
    "the",
    "of",
    "on",
    "in",
    "and",
    "with",
    "red",
    "green",
    "blue",
    "small",
    "large",
    "circle",
    "square",
    "star",
    "background",
    "picture",
    "painting",
    "photo",
    "cat",
    "dog",
    "boat",
    "river",
    "mountain",
    "under",
    "above",
    "night",
    "day",
    "blurry",
    "dark",
    "bright",
]
MERGE_COUNT = 90
OPSET = 17
TEXT_WIDTH = 32


# --- text


def byte_symbols() -> list[str]:
    """The 256 printable stand-ins of bytes, in the order of CLIP's vocabulary."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in kept]
    return [chr(byte) for byte in kept] + [chr(256 + i) for i in range(len(others))]


def learn_merges(words: list[str], count: int) -> list[tuple[str, str]]:
    """Byte-pair merges, most frequent pair first, ties in alphabetical order."""
    spelled = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while len(merges) < count:
        pairs = collections.Counter(pair for word in spelled for pair in itertools.pairwise(word))
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for word in spelled:
            i = 0
            while i < len(word) - 1:
                if (word[i], word[i + 1]) == best:
                    word[i : i + 2] = ["".join(best)]
                i += 1
    return merges


def write_tokenizer(folder: Path) -> int:
    """Writes the four tokenizer files; returns the vocabulary's size."""
    merges = learn_merges(WORDS, MERGE_COUNT)
    symbols = byte_symbols()
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols), *map("".join, merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    start, end = (
        {
            "content": text,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": True,
        }
        for text in tokens[-2:]
    )
    folder.mkdir(parents=True)
    vocabulary = {token: i for i, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    special = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": tokens[-1]}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "do_lower_case": True,
        "add_prefix_space": False,
        "errors": "replace",
        "bos_token": tokens[-2],
        "eos_token": tokens[-1],
        "unk_token": tokens[-1],
        "pad_token": tokens[-1],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return len(tokens)


# --- networks


def random_networks(
    vocabulary_size: int,
) -> tuple[CLIPTextModel, UNet2DConditionModel, AutoencoderKL]:
    torch.manual_seed(20240229)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=vocabulary_size,
            hidden_size=TEXT_WIDTH,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=77,
            bos_token_id=vocabulary_size - 2,
            eos_token_id=vocabulary_size - 1,
            pad_token_id=vocabulary_size - 1,
            attn_implementation="eager",
        )
    )
    with torch.no_grad():  # words must differ for prompts to matter
        text.get_input_embeddings().weight.normal_(std=1.0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=2,
        norm_num_groups=8,
    )
    vae = AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=64,
    )
    unet.set_attn_processor(plain_attention())
    vae.set_attn_processor(plain_attention())
    return text.eval(), unet.eval(), vae.eval()


def plain_attention():
    """Attention without the fused torch op, which the TorchScript exporter cannot fold."""
    from diffusers.models.attention_processor import AttnProcessor

    return AttnProcessor()


@torch.no_grad()
def fit_noise_prediction(
    unet: UNet2DConditionModel, text: CLIPTextModel, prompts: torch.Tensor, gain: float
) -> None:
    """Ridge regression of the last 3x3 convolution onto the noise of smooth pictures plus noise.

    prompts: int64 [P, 77]. gain: scale of the cross-attention outputs, so that guidance is visible.
    """
    for name, module in unet.named_modules():
        if name.endswith("attn2.to_out.0"):
            module.weight *= gain
    features: list[torch.Tensor] = []
    hook = unet.conv_out.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    alphas = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
    ).alphas_cumprod
    embeddings = text(prompts).last_hidden_state
    rows: list[torch.Tensor] = []
    targets: list[torch.Tensor] = []
    for t in range(0, 1000, 20):
        coarse = torch.randn(16, 4, 3, 3)
        clean = torch.nn.functional.interpolate(coarse, size=(8, 8), mode="bilinear")
        noise = torch.randn_like(clean)
        noisy = alphas[t].sqrt() * clean + (1 - alphas[t]).sqrt() * noise
        unet(noisy, t, embeddings[torch.arange(16) % len(embeddings)])
        patches = torch.nn.functional.unfold(features.pop(), 3, padding=1)
        rows.append(patches.transpose(1, 2).reshape(-1, patches.shape[1]))
        targets.append(noise.flatten(2).transpose(1, 2).reshape(-1, 4))
    hook.remove()
    a = torch.cat([torch.cat(rows), torch.ones(sum(map(len, rows)), 1)], 1).double()
    gram = a.T @ a
    gram += 1e-5 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    solution = torch.linalg.solve(gram, a.T @ torch.cat(targets).double()).float()
    unet.conv_out.weight.copy_(solution[:-1].T.reshape_as(unet.conv_out.weight))
    unet.conv_out.bias.copy_(solution[-1])


@torch.no_grad()
def spread_pictures(vae: AutoencoderKL) -> None:
    """Scales the decoder's last layer so that few pixels are cut off at black or white."""
    pictures = vae.decode(torch.randn(8, 4, 8, 8)).sample
    scale = 0.4 / pictures.std()
    vae.decoder.conv_out.weight *= scale
    vae.decoder.conv_out.bias.copy_((vae.decoder.conv_out.bias - pictures.mean()) * scale)


def build(tokenizer_folder: Path) -> StableDiffusionPipeline:
    """The pipeline in torch, float32; writes the tokenizer's files on the way."""
    vocabulary_size = write_tokenizer(tokenizer_folder)
    tokenizer = CLIPTokenizer.from_pretrained(tokenizer_folder)
    text, unet, vae = random_networks(vocabulary_size)
    prompts = [" ".join(WORDS[i : i + 6]) for i in range(0, 30, 6)] + [""]
    ids = tokenizer(prompts, padding="max_length", max_length=77, return_tensors="pt").input_ids
    fit_noise_prediction(unet, text, ids, gain=6.0)
    spread_pictures(vae)
    scheduler = PNDMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        skip_prk_steps=True,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipe = StableDiffusionPipeline(
        vae, text, tokenizer, unet, scheduler, None, None, requires_safety_checker=False
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


# --- export


class TextEncoder(torch.nn.Module):
    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids):
        out = self.model(input_ids)
        return out.last_hidden_state, out.pooler_output


class Unet(TextEncoder):
    def forward(self, sample, timestep, encoder_hidden_states):
        return self.model(sample, timestep, encoder_hidden_states, return_dict=False)[0]


class VaeDecoder(TextEncoder):
    def forward(self, latent_sample):
        return self.model.decode(latent_sample, return_dict=False)[0]


class VaeEncoder(TextEncoder):
    def forward(self, sample):
        return self.model.encode(sample).latent_dist.parameters


def export_graph(module, inputs: dict[str, torch.Tensor], axes: dict, folder: Path) -> None:
    """TorchScript export to folder/model.onnx, without the tracer's notes (source paths)."""
    import onnx

    outputs = [name for name in axes if name not in inputs]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            tuple(inputs.values()),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_axes=axes,
            do_constant_folding=True,
        )
    model = onnx.load(path)
    for node in model.graph.node:
        node.doc_string = ""
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def export(pipe: StableDiffusionPipeline, directory: Path) -> None:
    """Writes graphs and configurations (tokenizer is there already)."""
    latents = torch.randn(2, 4, 8, 8)
    text = torch.randn(2, 77, TEXT_WIDTH)
    image = {0: "batch_size", 2: "height", 3: "width"}
    small = {0: "batch_size", 2: "latent_height", 3: "latent_width"}
    words = {0: "batch_size", 1: "sequence_length"}
    export_graph(
        TextEncoder(pipe.text_encoder),
        {"input_ids": torch.zeros(2, 77, dtype=torch.int64)},
        {"input_ids": words, "last_hidden_state": words, "pooler_output": {0: "batch_size"}},
        directory / "text_encoder",
    )
    export_graph(
        Unet(pipe.unet),
        {"sample": latents, "timestep": torch.tensor(1.0), "encoder_hidden_states": text},
        {"sample": small, "encoder_hidden_states": words, "out_sample": small},
        directory / "unet",
    )
    export_graph(
        VaeDecoder(pipe.vae),
        {"latent_sample": latents},
        {"latent_sample": small, "sample": image},
        directory / "vae_decoder",
    )
    export_graph(
        VaeEncoder(pipe.vae),
        {"sample": torch.randn(2, 3, 64, 64)},
        {"sample": image, "latent_parameters": small},
        directory / "vae_encoder",
    )
    pipe.scheduler.save_pretrained(directory / "scheduler")
    parts = {
        "text_encoder": pipe.text_encoder,
        "unet": pipe.unet,
        "vae_decoder": pipe.vae,
        "vae_encoder": pipe.vae,
    }
    for name, part in parts.items():
        config = json.loads(part.config.to_json_string()) if name == "text_encoder" else {}
        if not config:
            config = {k: v for k, v in part.config.items() if k != "_name_or_path"}
            config["_class_name"] = type(part).__name__
        text_form = json.dumps(config, indent=2, sort_keys=True, default=list) + "\n"
        (directory / name / "config.json").write_text(text_form)
    index = {
        "_class_name": "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "PNDMScheduler"],
        "text_encoder": ["optimum", "ORTModelTextEncoder"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["optimum", "ORTModelUnet"],
        "vae_decoder": ["optimum", "ORTModelVaeDecoder"],
        "vae_encoder": ["optimum", "ORTModelVaeEncoder"],
    }
    (directory / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "tiny_sd"
        export(build(target / "tokenizer"), target)
        if DIRECTORY.exists():
            shutil.rmtree(DIRECTORY)
        shutil.copytree(target, DIRECTORY)
    total = sum(path.stat().st_size for path in DIRECTORY.rglob("*") if path.is_file())
    print(f"{DIRECTORY.name}: {total / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
