"""Builds a tiny but complete model directory in the layout that real exports have.

The graphs are made of real operators with fixed random weights: the text encoder looks up and
mixes embeddings, the U-Net convolves, adds a time embedding and attends to the text, the decoder
upsamples by 8. They are not trained; they are there so that every part of a pipeline has something
honest to run. All of it is below 150 kB.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import tiny_graphs as graphs
from tests.support.tiny_graphs import CHANNELS, LATENT_CHANNELS, LATENT_SIZE, SCALE_FACTOR, WIDTH
from tests.support.tiny_tokenizer import build_vocabulary, write_tokenizer


def build_tiny_directory(
    path: str | Path,
    *,
    timestep: str = "scalar",
    timestep_dtype: str | None = None,
    ids_dtype: str = "int64",
    half: bool = False,
    external_data: bool = False,
    scheduler: str = "DDIMScheduler",
    prediction_type: str = "epsilon",
    encoder_output: str | None = "latent_parameters",
    time_cond_proj_dim: int | None = None,
    pad_token: str = "<|endoftext|>",
    fast_tokenizer: bool = False,
    class_name: str = "StableDiffusionPipeline",
    seed: int = 0,
) -> Path:
    """Writes a model directory and returns its path.

    Args:
        path: Where to; made if it is not there.
        timestep: Form of the U-Net's timestep: "scalar" (rank 0), "steps" ([steps]) or "batch".
        timestep_dtype: Dtype of the timestep (float32, float16, float64, int64, int32); None: the
            dtype of the other inputs.
        ids_dtype: Dtype of `input_ids`: "int64" or "int32".
        half: Makes every floating-point tensor float16.
        external_data: Puts each part's weights into `model.onnx_data` beside its graph.
        scheduler: `_class_name` of scheduler_config.json.
        prediction_type: Entry of the scheduler's configuration.
        encoder_output: "latent_parameters" (mean and log-variance), "latent_sample", or None for a
            directory without encoder.
        time_cond_proj_dim: Adds the U-Net input `timestep_cond` [batch, this], as LCM models have.
        pad_token: "<|endoftext|>" as in SD 1.x or "!" as in SD 2.x.
        fast_tokenizer: Also writes `tokenizer.json`.
        class_name: `_class_name` of model_index.json.
        seed: Seed of the weights.
    """
    root = Path(path)
    root.mkdir(parents=True, exist_ok=True)
    real = "float16" if half else "float32"
    vocab = build_vocabulary()
    rng = np.random.default_rng(seed)
    models = {
        "text_encoder": graphs.text_encoder(rng, len(vocab), ids_dtype, real),
        "unet": graphs.unet(rng, timestep, timestep_dtype or real, real, time_cond_proj_dim),
        "vae_decoder": graphs.vae_decoder(rng, real),
    }
    if encoder_output is not None:
        models["vae_encoder"] = graphs.vae_encoder(rng, real, encoder_output)
    configs = _configs(len(vocab), time_cond_proj_dim)
    for name, model in models.items():
        part = root / name
        part.mkdir(exist_ok=True)
        write_json(part / "config.json", configs[name])
        graphs.save_graph(model, part / "model.onnx", external_data=external_data)
    write_tokenizer(root / "tokenizer", vocab, pad_token, fast_tokenizer)
    (root / "scheduler").mkdir(exist_ok=True)
    write_json(root / "scheduler" / "scheduler_config.json", _scheduler(scheduler, prediction_type))
    write_json(root / "model_index.json", _index(class_name, scheduler, list(models)))
    return root


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _configs(vocab: int, time_cond_proj_dim: int | None) -> dict[str, dict[str, Any]]:
    vae = {
        "_class_name": "AutoencoderKL",
        "block_out_channels": [4, 4, 8, 8],
        "in_channels": 3,
        "out_channels": 3,
        "latent_channels": LATENT_CHANNELS,
        "sample_size": LATENT_SIZE * SCALE_FACTOR,
        "scaling_factor": 0.18215,
    }
    return {
        "text_encoder": {
            "architectures": ["CLIPTextModel"],
            "model_type": "clip_text_model",
            "hidden_size": WIDTH,
            "max_position_embeddings": graphs.MAX_LENGTH,
            "vocab_size": vocab,
            "eos_token_id": vocab - 1,
        },
        "unet": {
            "_class_name": "UNet2DConditionModel",
            "in_channels": LATENT_CHANNELS,
            "out_channels": LATENT_CHANNELS,
            "sample_size": LATENT_SIZE,
            "block_out_channels": [CHANNELS, CHANNELS],
            "cross_attention_dim": WIDTH,
            "time_cond_proj_dim": time_cond_proj_dim,
        },
        "vae_decoder": vae,
        "vae_encoder": vae,
    }


def _scheduler(class_name: str, prediction_type: str) -> dict[str, Any]:
    return {
        "_class_name": class_name,
        "_diffusers_version": "0.30.0",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "prediction_type": prediction_type,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "timestep_spacing": "leading",
        "clip_sample": False,
        "trained_betas": None,
    }


def _index(class_name: str, scheduler: str, parts: list[str]) -> dict[str, Any]:
    legacy = class_name.startswith("Onnx")
    library, kind = ("diffusers", "OnnxRuntimeModel") if legacy else ("optimum", "ORTModel")
    index: dict[str, Any] = {"_class_name": class_name, "_diffusers_version": "0.30.0"}
    index |= {name: [library, kind] for name in sorted(parts)}
    index |= {
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", scheduler],
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
    }
    return index
