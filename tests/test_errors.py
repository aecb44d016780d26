"""The error tree: codes are stable, everything pickles, old `except` clauses still catch."""

from __future__ import annotations

import json
import pickle

import pytest

import textopia_fast
from textopia_fast import errors

CLASSES = [
    getattr(errors, name)
    for name in errors.__all__
    if issubclass(getattr(errors, name), errors.TextopiaError)
]

# API: add, never rename.
CODES = {
    "TextopiaError": "error",
    "ModelError": "model",
    "ModelNotFoundError": "model_not_found",
    "ModelFormatError": "model_format",
    "UnsupportedModelError": "model_unsupported",
    "UnsafeModelError": "model_unsafe",
    "ModelIntegrityError": "model_integrity",
    "InvalidRequestError": "invalid_request",
    "UnsupportedParameterError": "unsupported_parameter",
    "InputImageError": "image_invalid",
    "DeadlineExceededError": "deadline_exceeded",
    "GenerationCancelled": "cancelled",
    "ExecutionError": "execution_failed",
    "OutOfMemoryError": "out_of_memory",
    "DeviceLostError": "device_lost",
    "NumericalError": "numerical",
    "EngineStateError": "engine_state",
    "EngineClosedError": "engine_closed",
    "ForkedProcessError": "forked_process",
    "ConfigurationError": "configuration",
    "OutputError": "output_failed",
    "InternalError": "internal",
}

BUILTINS = {
    "ModelNotFoundError": FileNotFoundError,
    "ModelFormatError": ValueError,
    "UnsupportedModelError": ValueError,
    "UnsafeModelError": ValueError,
    "ModelIntegrityError": ValueError,
    "InvalidRequestError": ValueError,
    "DeadlineExceededError": TimeoutError,
    "ExecutionError": RuntimeError,
    "OutOfMemoryError": MemoryError,
    "NumericalError": ArithmeticError,
    "EngineStateError": RuntimeError,
    "ConfigurationError": ValueError,
    "OutputError": OSError,
    "InternalError": RuntimeError,
}


def test_codes() -> None:
    assert {cls.__name__: cls.code for cls in CLASSES} == CODES


@pytest.mark.parametrize(("name", "builtin"), BUILTINS.items())
def test_builtin_bases(name: str, builtin: type[Exception]) -> None:
    assert issubclass(getattr(errors, name), builtin)


@pytest.mark.parametrize("cls", CLASSES)
def test_pickle_and_text(cls: type[errors.TextopiaError]) -> None:
    error = cls("part: what was found.", hint="Do this.", stage="unet", step=3)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert str(copy) == str(error) == "part: what was found. Do this."
    assert copy.to_dict() == {
        "code": cls.code,
        "message": "part: what was found.",
        "hint": "Do this.",
        "details": {"stage": "unet", "step": 3},
    }
    assert json.dumps(copy.to_dict())
    assert str(cls("only this.")) == "only this."


def test_every_name_is_public() -> None:
    for name in errors.__all__:
        assert getattr(textopia_fast, name) is getattr(errors, name)


def test_errors_of_the_core() -> None:
    error = errors.from_native("out_of_memory", "no room", {"stage": "unet", "step": "4"})
    assert type(error) is errors.OutOfMemoryError
    assert error.details == {"stage": "unet", "step": 4}
    assert errors.from_native("model_format", "x", {"hint": "do"}).hint == "do"
    # Tensors are often named by a number.
    assert errors.from_native("invalid_request", "x", {"param": "12"}).details == {"param": "12"}
    assert type(errors.from_native("a code of the future", "x", {})) is errors.InternalError


def test_output_errors_carry_an_errno() -> None:
    assert errors.OutputError("x", errno=28).errno == 28
    assert errors.OutputError("x").errno is None


def test_warnings_are_user_warnings() -> None:
    assert issubclass(errors.TextopiaWarning, UserWarning)
