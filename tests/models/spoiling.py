"""Spoils graphs, and checks the errors that come of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from textopia_fast.errors import ModelError
from textopia_fast.models import open_directory


def check_message(error: ModelError) -> None:
    """The rules for messages: one line, printable, bounded, ends as a sentence."""
    text = str(error)
    assert "\n" not in text
    assert text.isprintable()
    assert text.endswith((".", "?"))
    for one in error.details.get("problems", [error.message]):
        assert len(one) <= 420, one


def refused(root: Path, kind: type[ModelError], text: str) -> ModelError:
    with pytest.raises(ModelError) as caught:
        open_directory(root)
    check_message(caught.value)
    assert type(caught.value) is kind, caught.value
    assert text in str(caught.value)
    return caught.value


def rewrite(graph: Path, change: Callable[[onnx.ModelProto], object]) -> None:
    model = onnx.load(graph, load_external_data=False)
    change(model)
    graph.write_bytes(model.SerializeToString())


def weight(model: onnx.ModelProto, name: str = "conv_in.weight") -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)
