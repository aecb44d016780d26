"""Configs of scheduler classes: frozen dictionaries, and what a class takes from another's."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from ..errors import (
    InvalidRequestError,
    ModelFormatError,
    ModelNotFoundError,
    OutputError,
    TextopiaWarning,
)
from ..schedulers.classes import CLASSES
from .class_facts import KNOWN_KEYS

__all__ = ["CONFIG_NAME", "FrozenDict", "read_config", "split_config", "write_config"]

CONFIG_NAME = "scheduler_config.json"


class FrozenDict(dict):
    """A dictionary that cannot be changed, with its items as attributes, too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"config has no {name!r}") from None

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise InvalidRequestError(
            "config: it cannot be changed.",
            hint="Make another scheduler: Class.from_config(scheduler.config, key=value).",
            param="config",
        )

    __setitem__ = __delitem__ = __setattr__ = __delattr__ = _refuse
    pop = popitem = clear = update = setdefault = __ior__ = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return (FrozenDict, (dict(self),))


def split_config(
    class_name: str, keys: Mapping[str, Any], config: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what the class takes, what it keeps for others) of a config.

    Keys that `_use_default_values` lists were only assumed by the class that they come from: here
    the defaults of this class take their place.
    """
    if not isinstance(config, Mapping):
        raise InvalidRequestError(
            f"{class_name}.from_config: {type(config).__name__}, allowed is a dictionary, such as "
            "another scheduler's config.",
            param="config",
        )
    assumed = config.get("_use_default_values") or ()
    given = {k: v for k, v in config.items() if k not in assumed and k != "_use_default_values"}
    taken = {k: v for k, v in given.items() if k in keys}
    kept = {k: v for k, v in given.items() if k not in keys}
    origin = config.get("_class_name", class_name)
    strange = [k for k in kept if not k.startswith("_") and k not in KNOWN_KEYS]
    if strange and origin in CLASSES:
        warnings.warn(
            f"{class_name}: {', '.join(sorted(strange))} in the config mean nothing to it.",
            TextopiaWarning,
            stacklevel=4,
        )
    return taken, kept


def read_config(directory: str | os.PathLike[str], subfolder: str | None) -> dict[str, Any]:
    """The config in a directory, or in a file.

    Raises:
        ModelNotFoundError: There is none, or it cannot be read.
        ModelFormatError: It is no JSON object.
    """
    path = Path(directory) / (subfolder or "")
    path = path if path.is_file() else path / CONFIG_NAME
    try:
        config = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ModelNotFoundError(
            f"{path}: {error.strerror or error}.",
            hint="A local directory is needed; models are not downloaded.",
            component="scheduler",
        ) from error
    except ValueError as error:
        raise ModelFormatError(f"{path}: no JSON ({error}).", component="scheduler") from error
    if not isinstance(config, dict):
        raise ModelFormatError(
            f"{path}: a JSON {type(config).__name__}, allowed is an object.", component="scheduler"
        )
    return config


def write_config(directory: str | os.PathLike[str], config: Mapping[str, Any]) -> None:
    """Writes scheduler_config.json; makes the directory."""
    plain = {k: v for k, v in config.items() if k != "_use_default_values"}
    text = json.dumps(plain, indent=2, sort_keys=True, default=_listed) + "\n"
    try:
        os.makedirs(directory, exist_ok=True)
        (Path(directory) / CONFIG_NAME).write_text(text, "utf-8")
    except OSError as error:
        raise OutputError(f"{directory}: {error.strerror or error}.", errno=error.errno) from error


def _listed(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)
