"""What the pipelines under diffusers' names share: loading, components, the scheduler."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, ClassVar, TypeVar

import numpy as np

from ..arrays import as_used
from ..batching import AUTO
from ..checks import refuse, shown
from ..errors import (
    ConfigurationError,
    EngineStateError,
    InvalidRequestError,
    UnsupportedModelError,
)
from ..pipeline import Pipeline
from ..request import reject_unsupported
from ..schedulers.classes import CLASSES
from .configs import FrozenDict
from .load_options import check_load_options, dtype_name, has_dtype

__all__ = ["Component", "DropInPipeline", "stand_in"]

_SAFETY = (
    "safety_checker: this model has one, which does not run here; pass safety_checker=None to say "
    "that you know."
)
_PARTS = {"vae": "vae_decoder", "text_encoder": "text_encoder", "unet": "unet"}
_Self = TypeVar("_Self", bound="DropInPipeline")


class Component:
    """A part of a pipeline, to be read and handed on: `Other(**pipe.components)`.

    Attributes:
        config: Contents of its config.json, as items and as attributes.
    """

    def __init__(self, pipeline: Pipeline, name: str) -> None:
        self._pipeline = pipeline
        self._name = name
        directory = pipeline.directory
        if name == "tokenizer":
            self.config = FrozenDict()
            self.model_max_length = directory.facts.max_tokens
            return
        part = directory.parts[_PARTS[name]]
        self.config = FrozenDict(part.config)
        self._dtype = next(iter(part.ports.outputs.values())).dtype

    @property
    def dtype(self) -> Any:
        """What the graph gives: of torch in a program that uses it, else of NumPy."""
        torch = sys.modules.get("torch")
        return np.dtype(self._dtype) if torch is None else getattr(torch, self._dtype)

    def __repr__(self) -> str:
        return f"Component({self._name!r} of {self._pipeline!r})"


class DropInPipeline:
    """A pipeline of diffusers on the native loop; the base of the classes of `interop.pipelines`.

    Calls keep no state on the object, so that any number of threads may call it at once; a call
    uses the scheduler that was set when it began, and never changes it.

    Args:
        vae, text_encoder, tokenizer, unet: Components of another pipeline of this package.
        scheduler: Of `interop.diffusers` or of diffusers; only its class and config count.
        safety_checker, feature_extractor, image_encoder: None; they do not run here.
        requires_safety_checker: Has no effect.
    """

    _callback_tensor_inputs: ClassVar[list[str]] = []
    # Settings of old configs that diffusers changes in the scheduler that a pipeline is made with.
    _corrections: ClassVar[dict[str, Any]] = {}
    config_name = "model_index.json"

    def __init__(
        self,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        unet: Any,
        scheduler: Any,
        safety_checker: Any = None,
        feature_extractor: Any = None,
        image_encoder: Any = None,
        requires_safety_checker: bool = True,
    ) -> None:
        reject_unsupported(
            safety_checker=safety_checker,
            feature_extractor=feature_extractor,
            image_encoder=image_encoder,
        )
        given = {"vae": vae, "text_encoder": text_encoder, "tokenizer": tokenizer, "unet": unet}
        for name, part in given.items():
            if not isinstance(part, Component):
                refuse(name, part, "are components of a pipeline of this package")
        if len({id(part._pipeline) for part in given.values()}) > 1:
            raise InvalidRequestError("unet: the components are of different pipelines.")
        self._set_up(vae._pipeline, scheduler)

    @classmethod
    def from_pretrained(
        cls: type[_Self],
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        scheduler: Any = None,
        threads: int | None = None,
        images_per_run: int | str | None = AUTO,
        **options: Any,
    ) -> _Self:
        """Opens a directory in the diffusers/optimum ONNX layout, or "tiny-shapes".

        Args:
            pretrained_model_name_or_path: Nothing is ever downloaded.
            scheduler: Instead of the directory's own.
            threads, images_per_run: As of `textopia_fast.Pipeline.from_pretrained`.
            **options: Of diffusers and optimum. What asks for nothing else than what happens is
                accepted: `torch_dtype` of the graphs (they run as exported; without it, as with
                `precision="auto"`), `safety_checker=None`, `provider` of the CPU, whatever is about
                downloads.

        Raises:
            UnsupportedParameterError: An option that cannot be honoured.
            ModelError, ConfigurationError: As of `textopia_fast.Pipeline.from_pretrained`.
        """
        pipeline = Pipeline.from_pretrained(
            pretrained_model_name_or_path,
            threads=threads,
            images_per_run=images_per_run,
            precision="fp32" if has_dtype(options) else "auto",
        )
        directory = pipeline.directory
        check_load_options(options, directory.parts["unet"].ports.inputs["sample"].dtype)
        if "safety_checker" in directory.unused and "safety_checker" not in options:
            reject_unsupported(safety_checker=_SAFETY)
        return cls._over(pipeline, scheduler)

    @classmethod
    def from_pipe(cls: type[_Self], pipeline: DropInPipeline, **changed: Any) -> _Self:
        """Another kind of pipeline on the same open graphs."""
        return cls(**{**pipeline.components, **changed})

    @classmethod
    def _over(cls: type[_Self], pipeline: Pipeline, scheduler: Any = None) -> _Self:
        made = object.__new__(cls)
        made._set_up(pipeline, scheduler)
        return made

    def _set_up(self, pipeline: Pipeline, scheduler: Any) -> None:
        self._pipeline = pipeline
        self._progress_bar_config: dict[str, Any] = {}
        self.vae = Component(pipeline, "vae")
        self.text_encoder = Component(pipeline, "text_encoder")
        self.tokenizer = Component(pipeline, "tokenizer")
        self.unet = Component(pipeline, "unet")
        self.safety_checker = self.feature_extractor = self.image_encoder = None
        self.vae_scale_factor = pipeline.directory.facts.vae_scale_factor
        own = pipeline.directory.scheduler_config
        self._own = stand_in(str(own.get("_class_name")), self._corrected(own))
        self._scheduler: Any = None  # the model's own; its class is made when somebody looks
        if scheduler is not None:
            self.scheduler = scheduler
            config = self._corrected({**scheduler.config, "_class_name": type(scheduler).__name__})
            if any(config.get(key) != scheduler.config.get(key) for key in self._corrections):
                remake = getattr(type(scheduler), "from_config", None)
                made = stand_in(config["_class_name"], config)
                self._scheduler = made if remake is None else remake(config)

    @property
    def scheduler(self) -> Any:
        """The scheduler; another one may be set. Its class and config say how calls sample."""
        if self._scheduler is None:
            self._scheduler = _full_scheduler(self._own)
        return self._scheduler

    @scheduler.setter
    def scheduler(self, scheduler: Any) -> None:
        name = type(scheduler).__name__
        if not isinstance(getattr(scheduler, "config", None), Mapping):
            refuse("scheduler", scheduler, "are scheduler objects with a config")
        if name not in CLASSES:
            raise UnsupportedModelError(
                f"scheduler: {name}, supported are {', '.join(CLASSES)}.", component="scheduler"
            )
        self._scheduler = scheduler

    def _scheduler_class(self, scheduler: Any) -> str:
        return type(self._own if scheduler is None else scheduler).__name__

    def _corrected(self, config: Mapping[str, Any]) -> dict[str, Any]:
        rules = CLASSES.get(str(config.get("_class_name")))
        full = {**({} if rules is None else rules.defaults), **config}
        changed = {k: v for k, v in self._corrections.items() if full.get(k, v) != v}
        kept = {k: v for k, v in config.items() if not (changed and k == "_use_default_values")}
        return {**kept, **changed}

    @property
    def components(self) -> dict[str, Any]:
        """What the constructor takes, by name."""
        return {
            "vae": self.vae,
            "text_encoder": self.text_encoder,
            "tokenizer": self.tokenizer,
            "unet": self.unet,
            "scheduler": self.scheduler,
            "safety_checker": None,
            "feature_extractor": None,
            "image_encoder": None,
        }

    @property
    def config(self) -> FrozenDict:
        """The class, and where the model was opened."""
        name = self._pipeline.directory.class_name
        return FrozenDict({"_class_name": name, "_name_or_path": self.name_or_path})

    @property
    def name_or_path(self) -> str:
        """The directory of the model."""
        return str(self._pipeline.directory.path)

    @property
    def device(self) -> Any:
        """The CPU: a torch.device in a program that uses torch, else "cpu"."""
        torch = sys.modules.get("torch")
        return "cpu" if torch is None else torch.device("cpu")

    _execution_device = device

    @property
    def dtype(self) -> Any:
        """What the U-Net computes in."""
        return self.unet.dtype

    def to(self: _Self, *places: Any, **named: Any) -> _Self:
        """Accepts the CPU and the dtype of the graphs.

        Raises:
            UnsupportedParameterError: Another device or dtype.
        """
        dtype = dtype_name(self.dtype)
        for place in (*places, *named.values()):
            if place is not None and str(place) != "cpu" and dtype_name(place) != dtype:
                reject_unsupported(to=place)
        return self

    def set_progress_bar_config(self, **config: Any) -> None:
        """Accepted for programs that turn the bar off: none is shown here."""
        self._progress_bar_config = config

    def enable_vae_slicing(self) -> None:
        """Has no effect: pictures are decoded one by one anyway."""

    disable_vae_slicing = enable_attention_slicing = disable_attention_slicing = enable_vae_slicing

    @property
    def _interrupt(self) -> bool:
        return False

    @_interrupt.setter
    def _interrupt(self, value: Any) -> None:
        raise EngineStateError(
            "_interrupt: it belongs to a call, and this pipeline may run several.",
            hint="Set it on the object that the callback is given, or pass cancel=CancelToken().",
        )

    def encode_prompt(
        self,
        prompt: Any,
        device: Any = None,
        num_images_per_prompt: int = 1,
        do_classifier_free_guidance: bool = True,
        negative_prompt: Any = None,
        prompt_embeds: Any = None,
        negative_prompt_embeds: Any = None,
        lora_scale: float | None = None,
        clip_skip: int | None = None,
    ) -> tuple[Any, Any]:
        """(embeddings, negative embeddings or None), one row per image, as of diffusers.

        Tensors in a program that uses torch, else arrays.
        """
        reject_unsupported(lora_scale=lora_scale, clip_skip=clip_skip)

        def rows(embeds: Any, texts: Any, count: int) -> np.ndarray:
            found = self._pipeline.encode_prompt(texts) if embeds is None else np.asarray(embeds)
            return np.repeat(found, count // len(found) * num_images_per_prompt, axis=0)

        count = 1 if isinstance(prompt, str) else len(prompt_embeds if prompt is None else prompt)
        positive = as_used(rows(prompt_embeds, prompt, count))
        if not do_classifier_free_guidance:
            return positive, None
        return positive, as_used(rows(negative_prompt_embeds, negative_prompt or "", count))

    def __repr__(self) -> str:
        scheduler = self._scheduler_class(self._scheduler)
        return f"{type(self).__name__}({shown(self.name_or_path)}, {scheduler})"


def _full_scheduler(own: Any) -> Any:
    """The scheduler of a model for programs to work with: one of this package where it can be."""
    from . import diffusers

    name = type(own).__name__
    with suppress(ConfigurationError):  # without torch there is nothing that they could step
        if name in diffusers.SCHEDULERS:
            return getattr(diffusers, name).from_config(own.config)
    return own  # enough to sample with, or for the call to say why it cannot


def stand_in(class_name: str, config: Mapping[str, Any]) -> Any:
    """What a call needs of a scheduler: the name of a class, and a config."""
    return type(class_name, (), {"config": FrozenDict(config)})()
