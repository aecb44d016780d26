"""The error tree of textopia_fast.

Every error derives from `TextopiaError` and from the builtin that older code already catches.
`code` is stable API. Messages read "where: what was found, what is allowed"; `hint` says what to do
about it.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "ConfigurationError",
    "DeadlineExceededError",
    "DeviceLostError",
    "EngineClosedError",
    "EngineStateError",
    "ExecutionError",
    "ForkedProcessError",
    "GenerationCancelled",
    "InputImageError",
    "InternalError",
    "InvalidRequestError",
    "ModelError",
    "ModelFormatError",
    "ModelIntegrityError",
    "ModelNotFoundError",
    "NumericalError",
    "OutOfMemoryError",
    "OutputError",
    "TextopiaError",
    "TextopiaWarning",
    "UnsafeModelError",
    "UnsupportedModelError",
    "UnsupportedParameterError",
]


class TextopiaError(Exception):
    """Base of every error that this package raises on purpose.

    Attributes:
        code: Stable identifier of the kind of error, for programs.
        details: Further facts by name (`stage`, `step`, `cause`, `param` ...); values are plain
            data.
        hint: What the caller can do, or None.
    """

    code: str = "error"

    def __init__(self, message: str, *, hint: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details

    def __str__(self) -> str:
        return f"{self.message} {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.hint, self.details))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for logs and HTTP bodies."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "details": dict(self.details),
        }


class TextopiaWarning(UserWarning):
    """Something was changed or ignored that the caller should know of (a prompt cut short, say)."""


class ModelError(TextopiaError):
    """Something is wrong with a model directory. `details["component"]` names the part."""

    code = "model"


class ModelNotFoundError(ModelError, FileNotFoundError):
    """The directory, or a part of it, is not there or cannot be read."""

    code = "model_not_found"


class ModelFormatError(ModelError, ValueError):
    """A file is not what it should be: bad JSON, a truncated graph, a broken tokenizer."""

    code = "model_format"


class UnsupportedModelError(ModelError, ValueError):
    """A well-formed model that needs something this version does not have."""

    code = "model_unsupported"


class UnsafeModelError(ModelError, ValueError):
    """A model that reaches outside its directory or exceeds a stated limit."""

    code = "model_unsafe"


class ModelIntegrityError(ModelError, ValueError):
    """A file does not match the size or checksum that was recorded for it."""

    code = "model_integrity"


class InvalidRequestError(TextopiaError, ValueError):
    """A parameter is outside what is allowed. `details["param"]` names it."""

    code = "invalid_request"


class UnsupportedParameterError(InvalidRequestError):
    """A parameter of other libraries that cannot be honoured here, and is not ignored."""

    code = "unsupported_parameter"


class InputImageError(InvalidRequestError):
    """An input image that cannot be used."""

    code = "image_invalid"


class DeadlineExceededError(TextopiaError, TimeoutError):
    """The deadline of the request passed. `details` has `stage` and `steps_done`."""

    code = "deadline_exceeded"


class GenerationCancelled(TextopiaError):  # noqa: N818 - not an error of anybody
    """The request was cancelled. `details` has `stage` and `steps_done`."""

    code = "cancelled"


class ExecutionError(TextopiaError, RuntimeError):
    """A graph failed while running; `details["cause"]` holds the runtime's own text."""

    code = "execution_failed"


class OutOfMemoryError(ExecutionError, MemoryError):
    """Memory ran out; the pipeline stays usable."""

    code = "out_of_memory"


class DeviceLostError(ExecutionError):
    """A GPU stopped working in this process, which has to be restarted to use it again."""

    code = "device_lost"


class NumericalError(ExecutionError, ArithmeticError):
    """NaN or infinity where a number should be. `details` has `stage` and `step`."""

    code = "numerical"


class EngineStateError(TextopiaError, RuntimeError):
    """The object is in no state to do this."""

    code = "engine_state"


class EngineClosedError(EngineStateError):
    """Used after `close()`."""

    code = "engine_closed"


class ForkedProcessError(EngineStateError):
    """Made in one process, used in its forked child; make a new one in the child."""

    code = "forked_process"


class ConfigurationError(TextopiaError, ValueError):
    """The installation or an option cannot work: no ONNX Runtime, an unknown provider, ..."""

    code = "configuration"


class OutputError(TextopiaError, OSError):
    """A result could not be written; nothing is left behind. `errno` says why, as for OSError."""

    code = "output_failed"

    def __init__(self, message: str, *, hint: str | None = None, **details: Any) -> None:
        super().__init__(message, hint=hint, **details)
        self.errno = details.get("errno")


class InternalError(TextopiaError, RuntimeError):
    """A bug in textopia_fast: please report it."""

    code = "internal"


def _all_classes() -> dict[str, type[TextopiaError]]:
    found: dict[str, type[TextopiaError]] = {}
    queue: list[type[TextopiaError]] = [TextopiaError]
    while queue:
        cls = queue.pop()
        found[cls.code] = cls
        queue.extend(cls.__subclasses__())
    return found


_BY_CODE = _all_classes()
_COUNTS = {"step", "steps_done"}


def _rebuild(
    cls: type[TextopiaError], message: str, hint: str | None, details: dict[str, Any]
) -> TextopiaError:
    return cls(message, hint=hint, **details)


def from_native(code: str, message: str, details: dict[str, str]) -> TextopiaError:
    """Builds the exception for an error of the C++ core (called by the binding)."""
    cls = _BY_CODE.get(code, InternalError)
    # Only counts become numbers: exporters name tensors "123", and a name stays a string.
    facts: dict[str, Any] = {
        key: int(value) if key in _COUNTS else value for key, value in details.items()
    }
    hint = facts.pop("hint", None)
    return cls(message, hint=hint, **facts)
