"""Directories that are fine: what is read from them."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from tests.support.tiny_directory import build_tiny_directory, write_json
from textopia_fast.errors import ModelFormatError, UnsupportedModelError
from textopia_fast.models import BUNDLED, open_directory


def edit(path: Path, **changes: object) -> None:
    """Changes keys of a JSON file; None removes a key."""
    value = json.loads(path.read_text()) | changes
    write_json(path, {key: item for key, item in value.items() if item is not None})


def test_parts_and_facts(tiny_model: Path) -> None:
    directory = open_directory(tiny_model)
    assert directory.path == tiny_model
    assert directory.class_name == "StableDiffusionPipeline"
    assert set(directory.parts) == {"text_encoder", "unet", "vae_decoder", "vae_encoder"}
    assert directory.parts["unet"].graph == tiny_model / "unet" / "model.onnx"
    assert directory.parts["unet"].external_files == ()
    assert directory.parts["unet"].facts.opset == 18
    assert directory.scheduler_config["_class_name"] == "DDIMScheduler"
    assert directory.tokenizer == tiny_model / "tokenizer"
    assert directory.unused == ()
    assert dataclasses.asdict(directory.facts) == {
        "latent_channels": 4,
        "vae_scale_factor": 8,
        "scaling_factor": 0.18215,
        "shift_factor": 0.0,
        "default_height": 64,
        "default_width": 64,
        "cross_attention_dim": 16,
        "time_cond_proj_dim": None,
        "takes_mask": False,
        "max_tokens": 77,
    }


def test_a_string_path_works_too(tiny_model: Path) -> None:
    assert open_directory(str(tiny_model)).name == tiny_model.resolve().name


def test_the_result_cannot_be_changed(tiny_model: Path) -> None:
    directory = open_directory(tiny_model)
    with pytest.raises(dataclasses.FrozenInstanceError):
        directory.name = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        directory.parts["unet"].config["sample_size"] = 1  # type: ignore[index]
    with pytest.raises(TypeError):
        directory.scheduler_config["x"] = 1  # type: ignore[index]


@pytest.mark.parametrize("form", ["scalar", "steps", "batch"])
@pytest.mark.parametrize("dtype", [None, "float16", "float64", "int64", "int32"])
def test_every_form_of_timestep(tmp_path: Path, form: str, dtype: str | None) -> None:
    root = build_tiny_directory(tmp_path, timestep=form, timestep_dtype=dtype)
    ports = open_directory(root).parts["unet"].ports
    assert ports.timestep_form == form
    assert ports.inputs["timestep"].dtype == dtype or "float32"


@pytest.mark.parametrize("external", [False, True])
def test_half_precision_and_external_data(tmp_path: Path, external: bool) -> None:
    root = build_tiny_directory(tmp_path, half=True, external_data=external, ids_dtype="int32")
    directory = open_directory(root)
    unet = directory.parts["unet"]
    assert unet.ports.inputs["sample"].dtype == "float16"
    assert directory.parts["text_encoder"].ports.inputs["input_ids"].dtype == "int32"
    expected = (root / "unet" / "model.onnx_data",) if external else ()
    assert unet.external_files == expected
    assert unet.facts.external_bytes == sum(path.stat().st_size for path in expected)


def test_external_data_does_not_change_the_parameter_count(tmp_path: Path) -> None:
    inside = build_tiny_directory(tmp_path / "inside")
    outside = build_tiny_directory(tmp_path / "outside", external_data=True)
    counts = [
        [part.facts.parameters for part in open_directory(root).parts.values()]
        for root in (inside, outside)
    ]
    assert counts[0] == counts[1]


def test_time_cond_of_consistency_models(tmp_path: Path) -> None:
    directory = open_directory(build_tiny_directory(tmp_path, time_cond_proj_dim=12))
    assert directory.facts.time_cond_proj_dim == 12
    assert directory.parts["unet"].ports.inputs["timestep_cond"].shape == ("batch_size", 12)


@pytest.mark.parametrize("output", ["latent_parameters", "latent_sample"])
def test_both_forms_of_encoder(tmp_path: Path, output: str) -> None:
    ports = open_directory(build_tiny_directory(tmp_path, encoder_output=output)).parts
    assert set(ports["vae_encoder"].ports.outputs) == {output}


def test_the_encoder_is_optional(tmp_path: Path) -> None:
    assert (
        "vae_encoder"
        not in open_directory(build_tiny_directory(tmp_path, encoder_output=None)).parts
    )


@pytest.mark.parametrize("name", ["ORTStableDiffusionPipeline", "OnnxStableDiffusionPipeline"])
def test_other_class_names(tmp_path: Path, name: str) -> None:
    assert open_directory(build_tiny_directory(tmp_path, class_name=name)).class_name == name


def test_legacy_directories_have_no_configurations(tmp_path: Path) -> None:
    root = build_tiny_directory(tmp_path, class_name="OnnxStableDiffusionPipeline")
    for config in root.glob("*/config.json"):
        config.unlink()
    facts = open_directory(root).facts
    # The numbers that OnnxStableDiffusionPipeline has built in.
    assert (facts.default_height, facts.default_width) == (512, 512)
    assert (facts.vae_scale_factor, facts.scaling_factor) == (8, 0.18215)
    assert facts.cross_attention_dim == 16  # from the graph


def test_unused_components_are_listed(root: Path) -> None:
    edit(root / "model_index.json", safety_checker=["stable_diffusion", "SafetyChecker"])
    assert open_directory(root).unused == ("safety_checker",)


def test_rectangular_sample_size_and_scaling(root: Path) -> None:
    edit(root / "unet" / "config.json", sample_size=[8, 16])
    edit(root / "vae_decoder" / "config.json", scaling_factor=0.5, shift_factor=0.25)
    facts = open_directory(root).facts
    assert (facts.default_height, facts.default_width) == (64, 128)
    assert (facts.scaling_factor, facts.shift_factor) == (0.5, 0.25)


@pytest.mark.parametrize(
    ("file", "key", "default"),
    [
        ("vae_decoder/config.json", "scaling_factor", ("scaling_factor", 0.18215)),
        ("vae_decoder/config.json", "latent_channels", ("latent_channels", 4)),
        ("unet/config.json", "cross_attention_dim", ("cross_attention_dim", 16)),
        ("unet/config.json", "in_channels", ("latent_channels", 4)),
        ("text_encoder/config.json", "max_position_embeddings", ("max_tokens", 77)),
        ("tokenizer/tokenizer_config.json", "model_max_length", ("max_tokens", 77)),
    ],
)
def test_keys_that_may_be_missing(
    root: Path, file: str, key: str, default: tuple[str, object]
) -> None:
    edit(root / file, **{key: None})
    assert getattr(open_directory(root).facts, default[0]) == default[1]


@pytest.mark.parametrize(
    ("file", "key"),
    [("unet/config.json", "sample_size"), ("vae_decoder/config.json", "block_out_channels")],
)
def test_keys_that_may_not_be_missing(root: Path, file: str, key: str) -> None:
    edit(root / file, **{key: None})
    with pytest.raises(ModelFormatError, match=f"{file}: the key '{key}' is missing"):
        open_directory(root)


@pytest.mark.parametrize(
    ("file", "changes", "kind", "text"),
    [
        ("unet", {"sample_size": 0}, ModelFormatError, "'sample_size' is 0"),
        ("unet", {"sample_size": True}, ModelFormatError, "'sample_size' is True"),
        ("unet", {"sample_size": [8, 8, 8]}, ModelFormatError, "one or two sizes"),
        ("unet", {"sample_size": "64"}, ModelFormatError, "'sample_size' is '64'"),
        ("unet", {"cross_attention_dim": 32}, ModelFormatError, "must be the same"),
        ("unet", {"time_cond_proj_dim": 256}, ModelFormatError, "no input 'timestep_cond'"),
        ("unet", {"in_channels": 5}, UnsupportedModelError, "9 for inpainting"),
        ("unet", {"in_channels": 9}, ModelFormatError, "the graph has 4"),
        ("unet", {"out_channels": 8}, UnsupportedModelError, "4 latent channels"),
        ("vae_decoder", {"scaling_factor": 0}, ModelFormatError, "above 0"),
        ("vae_decoder", {"scaling_factor": 1e9}, ModelFormatError, "finite"),
        ("vae_decoder", {"block_out_channels": []}, ModelFormatError, "1 to 8 sizes"),
        ("vae_decoder", {"block_out_channels": 4}, ModelFormatError, "1 to 8 sizes"),
        ("vae_decoder", {"latent_channels": 16}, UnsupportedModelError, "the graph has 4"),
        ("text_encoder", {"max_position_embeddings": -1}, ModelFormatError, "whole number"),
    ],
)
def test_impossible_numbers(
    root: Path, file: str, changes: dict, kind: type[Exception], text: str
) -> None:
    edit(root / file / "config.json", **changes)
    with pytest.raises(kind, match=text):
        open_directory(root)


def test_the_shorter_limit_of_tokens_counts(root: Path) -> None:
    edit(root / "text_encoder" / "config.json", max_position_embeddings=32)
    assert open_directory(root).facts.max_tokens == 32
    edit(root / "tokenizer" / "tokenizer_config.json", model_max_length=1e30)
    assert open_directory(root).facts.max_tokens == 32
    edit(root / "tokenizer" / "tokenizer_config.json", model_max_length=1)
    with pytest.raises(ModelFormatError, match="at least 3"):
        open_directory(root)


def test_the_layout_of_the_hugging_face_cache(tiny_model: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--org--name"
    snapshot, blobs = repository / "snapshots" / "0123abcd", repository / "blobs"
    blobs.mkdir(parents=True)
    for number, file in enumerate(sorted(p for p in tiny_model.rglob("*") if p.is_file())):
        link = snapshot / file.relative_to(tiny_model)
        link.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, blobs / str(number))
        depth = len(link.relative_to(repository).parts) - 1
        link.symlink_to(Path(*[".."] * depth, "blobs", str(number)))
    assert open_directory(snapshot).facts == open_directory(tiny_model).facts


def test_links_inside_the_directory_are_fine(tmp_path: Path) -> None:
    root = build_tiny_directory(tmp_path / "model", external_data=True)
    data = root / "unet" / "model.onnx_data"
    data.rename(root / "weights")
    data.symlink_to(Path("..", "weights"))
    (tmp_path / "link").symlink_to(root)
    assert open_directory(tmp_path / "link").parts["unet"].external_files


def test_names_with_spaces_and_unicode(tmp_path: Path) -> None:
    root = build_tiny_directory(tmp_path / "ein Modell – 模型")
    assert open_directory(root).name == "ein Modell – 模型"


def test_a_read_only_directory_works(tmp_path: Path) -> None:
    root = build_tiny_directory(tmp_path / "model")
    for path in [root, *root.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert open_directory(root).parts
    finally:
        for path in [root, *root.rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.mark.parametrize("name", sorted(BUNDLED))
def test_bundled_models(name: str) -> None:
    directory = open_directory(name)
    assert directory.name == name
    assert set(directory.parts) >= {"text_encoder", "unet", "vae_decoder"}
