"""The parts of a diffusers scheduler that have nothing to do with steps: config and output."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

from ..errors import InvalidRequestError
from ..schedulers.classes import SchedulerClass
from .class_facts import OFFERED
from .configs import CONFIG_NAME, FrozenDict, read_config, split_config, write_config
from .outputs import NamedResult

__all__ = ["ConfiguredScheduler", "SchedulerOutput"]

# Of from_pretrained: they speak of downloads, and there are none.
_HUB_ARGUMENTS = ("cache_dir", "force_download", "proxies", "local_files_only", "token", "revision")


class SchedulerOutput(NamedResult):
    """What `step` returns.

    `prev_sample` is the latent for the next run, `pred_original_sample` the estimate of the clean
    one where the class gives it.
    """


class ConfiguredScheduler:
    """Settings from keywords, from another scheduler's config, from a file."""

    config_name = CONFIG_NAME
    has_compatibles = True
    order = 1
    _rules: ClassVar[SchedulerClass]
    _keys: ClassVar[dict[str, Any]]
    _compatibles: ClassVar[list[str]] = list(OFFERED)

    def __init__(self, **settings: Any) -> None:
        unknown = [key for key in settings if key not in self._keys]
        if unknown:
            raise InvalidRequestError(
                f"{type(self).__name__}: {', '.join(map(repr, unknown))} not known, allowed are "
                f"{', '.join(self._keys)}.",
                param=unknown[0],
            )
        assumed = [key for key in self._keys if key not in settings]
        name = type(self).__name__
        values = {**self._keys, **settings, "_use_default_values": assumed, "_class_name": name}
        self._internal_dict = FrozenDict(values)

    @property
    def config(self) -> FrozenDict:
        """The settings, frozen, as items and as attributes."""
        return self._internal_dict

    @property
    def compatibles(self) -> list[type]:
        """The classes that take this one's config."""
        from . import diffusers

        return [getattr(diffusers, name) for name in self._compatibles]

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], return_unused_kwargs: bool = False, **settings: Any
    ) -> Any:
        """Makes a scheduler from another's config (or a dictionary); `settings` go before it.

        Keys of other classes are kept in `config`, so that swapping back loses nothing.

        Raises:
            InvalidRequestError: `config` is no dictionary, or a setting is not known.
            UnsupportedModelError: A value is not supported.
        """
        taken, kept = split_config(cls.__name__, cls._keys, config)
        unused = {}
        if return_unused_kwargs:
            unused = {k: settings.pop(k) for k in list(settings) if k not in cls._keys}
        scheduler = cls(**{**taken, **settings})
        own = {**scheduler._internal_dict}
        scheduler._internal_dict = FrozenDict({**kept, **own})
        return (scheduler, {**unused, **kept}) if return_unused_kwargs else scheduler

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | os.PathLike[str],
        subfolder: str | None = None,
        return_unused_kwargs: bool = False,
        **settings: Any,
    ) -> Any:
        """Makes a scheduler from the scheduler_config.json of a local directory."""
        config = read_config(pretrained_model_name_or_path, subfolder)
        settings = {k: v for k, v in settings.items() if k not in _HUB_ARGUMENTS}
        return cls.from_config(config, return_unused_kwargs, **settings)

    def save_config(self, save_directory: str | os.PathLike[str], **_: Any) -> None:
        """Writes scheduler_config.json into a directory."""
        write_config(save_directory, self._internal_dict)

    save_pretrained = save_config

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self.config)})"
