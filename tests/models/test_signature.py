"""Which tensor of a graph is which."""

from __future__ import annotations

import pytest

from textopia_fast.errors import UnsupportedModelError
from textopia_fast.models import GraphSignature, TensorSpec, classify


def unet(*extra: TensorSpec, **replaced: TensorSpec | None) -> GraphSignature:
    specs: dict[str, TensorSpec | None] = {
        "timestep": TensorSpec("timestep", "float32", ()),
        "encoder_hidden_states": TensorSpec("encoder_hidden_states", "float32", ("b", 77, 768)),
        "sample": TensorSpec("sample", "float32", ("b", 4, None, None)),
    }
    specs |= replaced
    inputs = tuple(spec for spec in specs.values() if spec is not None)
    output = TensorSpec("out_sample", "float32", ("b", 4, None, None))
    return GraphSignature((*inputs, *extra), (output,))


def test_order_does_not_matter() -> None:
    ports = classify(unet(), "unet")
    assert ports.role == "unet"
    assert ports.inputs["sample"].shape == ("b", 4, None, None)
    assert ports.outputs["out_sample"].name == "out_sample"


@pytest.mark.parametrize(
    ("shape", "form"),
    [
        ((), "scalar"),
        ((1,), "steps"),
        (("steps",), "steps"),
        ((None,), "steps"),
        (("b",), "batch"),  # the name that the sample's batch has
        (("batch_size",), "batch"),
        ((2,), "batch"),
    ],
)
def test_forms_of_the_timestep(shape: tuple, form: str) -> None:
    signature = unet(timestep=TensorSpec("timestep", "int64", shape))
    assert classify(signature, "unet").timestep_form == form


def test_a_sole_output_may_have_any_name() -> None:
    signature = GraphSignature(
        (TensorSpec("latent_sample", "float16", ("b", 4, "h", "w")),),
        (TensorSpec("image", "float16", ("b", 3, "H", "W")),),
    )
    assert classify(signature, "vae_decoder").outputs["sample"].name == "image"


def test_further_outputs_are_fine() -> None:
    outputs = (
        TensorSpec("hidden_states.0", "float32", ("b", 77, 8)),
        TensorSpec("last_hidden_state", "float32", ("b", 77, 8)),
    )
    signature = GraphSignature((TensorSpec("input_ids", "int64", ("b", 77)),), outputs)
    assert set(classify(signature, "text_encoder").outputs) == {"last_hidden_state"}


@pytest.mark.parametrize(
    ("signature", "text"),
    [
        (unet(sample=None), "has no input 'sample'"),
        (unet(timestep=TensorSpec("timestep", "float32", (1, 1))), "rank 2, allowed is 0 or 1"),
        (unet(timestep=TensorSpec("timestep", "bool", ())), "is bool, allowed are float32"),
        (unet(sample=TensorSpec("sample", "float32", ("b", 4))), "rank 2, allowed is 4"),
        (unet(sample=TensorSpec("sample", "bfloat16", ("b", 4, 1, 1))), "is bfloat16"),
        (unet(TensorSpec("time_ids", "float32", ("b", 6))), "unknown inputs 'time_ids'"),
        (unet(TensorSpec("a\nb", "float32", ())), r"unknown inputs 'a\nb'"),
    ],
)
def test_what_does_not_fit(signature: GraphSignature, text: str) -> None:
    with pytest.raises(UnsupportedModelError) as caught:
        classify(signature, "unet")
    assert text in str(caught.value)
    assert caught.value.details["problems"]


def test_everything_wrong_is_said_at_once() -> None:
    signature = unet(TensorSpec("extra", "float32", ()), sample=None)
    with pytest.raises(UnsupportedModelError) as caught:
        classify(signature, "unet", "somewhere.onnx")
    assert len(caught.value.details["problems"]) == 2
    assert str(caught.value).startswith("somewhere.onnx: ")


def test_an_encoder_without_a_known_output() -> None:
    signature = GraphSignature(
        (TensorSpec("sample", "float32", ("b", 3, "h", "w")),),
        (
            TensorSpec("mean", "float32", ("b", 4, "h", "w")),
            TensorSpec("std", "float32", ("b", 4, "h", "w")),
        ),
    )
    with pytest.raises(UnsupportedModelError, match="'latent_parameters' or 'latent_sample'"):
        classify(signature, "vae_encoder")
