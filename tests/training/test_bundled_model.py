"""The exported model: complete, small, laid out and signed like the exports of optimum."""

import json
from pathlib import Path

import pytest

from world import PICTURE_SIZE

MODEL = Path(__file__).parents[2] / "python/textopia_fast/models/tiny_shapes"
SIGNATURES = {
    "text_encoder": (["input_ids"], ["last_hidden_state", "pooler_output"]),
    "unet": (["sample", "timestep", "encoder_hidden_states"], ["out_sample"]),
    "vae_encoder": (["sample"], ["latent_parameters"]),
    "vae_decoder": (["latent_sample"], ["sample"]),
}


def test_is_complete_and_at_most_12_megabytes():
    files = {p.relative_to(MODEL).as_posix() for p in MODEL.rglob("*") if p.is_file()}
    assert files == {
        "model_index.json",
        "scheduler/scheduler_config.json",
        *(f"{part}/{name}" for part in SIGNATURES for name in ("config.json", "model.onnx")),
        "tokenizer/merges.txt",
        "tokenizer/special_tokens_map.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/vocab.json",
    }
    assert sum((MODEL / f).stat().st_size for f in files) <= 12e6


def test_configurations_agree_with_the_world():
    unet = json.loads((MODEL / "unet/config.json").read_text())
    vae = json.loads((MODEL / "vae_decoder/config.json").read_text())
    text = json.loads((MODEL / "text_encoder/config.json").read_text())
    vocabulary = json.loads((MODEL / "tokenizer/vocab.json").read_text("utf-8"))
    scale = 2 ** (len(vae["block_out_channels"]) - 1)
    assert unet["sample_size"] * scale == PICTURE_SIZE
    assert unet["in_channels"] == vae["latent_channels"]
    assert unet["cross_attention_dim"] == text["hidden_size"]
    assert text["vocab_size"] == len(vocabulary)


@pytest.mark.parametrize("part", SIGNATURES)
def test_graph_signatures(part):
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(
        str(MODEL / part / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    inputs, outputs = SIGNATURES[part]
    assert [i.name for i in session.get_inputs()] == inputs
    assert [o.name for o in session.get_outputs()] == outputs
    if part == "unet":
        assert session.get_inputs()[1].shape == []  # one timestep for the whole batch
