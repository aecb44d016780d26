"""Pipelines under diffusers' names: swap the import, keep the program.

    from textopia_fast import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained("path/of/an/onnx/export")
    image = pipe("a red circle on a blue background", generator=generator).images[0]

Parameters, their order and defaults, results, callbacks and draws from the caller's generators are
diffusers'. Arrays that come out are torch tensors where diffusers gives tensors, in programs that
have imported torch; NumPy arrays in others. Beside diffusers' arguments every call takes `seed`,
`cancel` and `deadline` of `textopia_fast.Pipeline`.
"""

from __future__ import annotations

from inspect import Parameter, Signature
from typing import Any, ClassVar

import numpy as np

from ..arrays import as_used
from ..checks import check_choice, refuse
from ..errors import InvalidRequestError, UnsupportedModelError
from ..request import reject_unsupported
from .class_facts import TWO_RUNS, takes_schedule
from .drop_in import DropInPipeline, stand_in
from .outputs import StableDiffusionPipelineOutput
from .step_callbacks import step_callback
from .torch_noise import import_torch

__all__ = [
    "LatentConsistencyModelPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionPipeline",
    "StableDiffusionPipelineOutput",
]

_OUTPUT_TYPES = ("pil", "np", "pt", "latent")
_ORIGINAL_STEPS = "original_inference_steps"
_NAMES = "callback_on_step_end_tensor_inputs"
_LATENTS = ("latents", "prompt_embeds", "negative_prompt_embeds")
# Parameters in diffusers' order, with its defaults.
_SIZE = {"height": None, "width": None}
_STEPS = {"num_inference_steps": 50, "timesteps": None, "sigmas": None}
_GUIDED = {
    "guidance_scale": 7.5,
    "negative_prompt": None,
    "num_images_per_prompt": 1,
    "eta": 0.0,
    "generator": None,
}
_START = {"latents": None}
_EMBEDS = {"prompt_embeds": None, "negative_prompt_embeds": None}
_ADAPTER = {"ip_adapter_image": None, "ip_adapter_image_embeds": None}
_RESULT = {"output_type": "pil", "return_dict": True, "cross_attention_kwargs": None}
_END = {
    "clip_skip": None,
    "callback_on_step_end": None,
    "callback_on_step_end_tensor_inputs": ["latents"],
}
# diffusers' deprecated ones, and ours.
_MORE = {"callback": None, "callback_steps": None, "seed": None, "cancel": None, "deadline": None}
# Those that `textopia_fast.Pipeline` takes under the same name.
_SAME = (
    *("prompt", "image", "mask_image", "masked_image_latents", "height", "width"),
    *("padding_mask_crop", "strength", *_STEPS, *_GUIDED, *_START, *_EMBEDS),
    *("clip_skip", "seed", "cancel", "deadline"),
)


def _call_signature(*groups: dict[str, Any]) -> Signature:
    kind = Parameter.POSITIONAL_OR_KEYWORD
    positional = {"prompt": None}
    for group in groups:
        positional |= group
    return Signature(
        [Parameter("self", kind)]
        + [Parameter(name, kind, default=value) for name, value in positional.items()]
        + [Parameter(name, Parameter.KEYWORD_ONLY, default=v) for name, v in _MORE.items()]
    )


class _Callable(DropInPipeline):
    """`__call__` after the signature of the class."""

    _signature: ClassVar[Signature]

    def __init_subclass__(cls) -> None:
        def __call__(self: _Callable, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
            bound = cls._signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            given = dict(bound.arguments)
            del given["self"]
            return self._run(given)

        __call__.__signature__ = cls._signature  # type: ignore[attr-defined]
        __call__.__doc__ = f"Makes images as diffusers' {cls.__name__} does."
        __call__.__qualname__ = f"{cls.__name__}.__call__"
        cls.__call__ = __call__  # type: ignore[method-assign]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Makes images; each class has its own parameters."""
        raise InvalidRequestError(f"{type(self).__name__}: it is the base of pipelines.")

    def _run(self, given: dict[str, Any]) -> Any:
        return self._generate(given, self._scheduler or self._own)

    def _generate(self, given: dict[str, Any], scheduler: Any) -> Any:
        """One call of `textopia_fast.Pipeline`; `given` has diffusers' arguments by name."""
        reject_unsupported(
            ip_adapter_image=given["ip_adapter_image"],
            ip_adapter_image_embeds=given["ip_adapter_image_embeds"],
            cross_attention_kwargs=given["cross_attention_kwargs"] or None,
        )
        output_type = check_choice("output_type", given["output_type"], _OUTPUT_TYPES)
        if output_type == "pt":
            import_torch()
        negative = given.get("negative_prompt_embeds")
        if negative is not None and given["negative_prompt"] is not None:
            refuse("negative_prompt_embeds", negative, "is none beside negative_prompt")
        on_step_end, names = given["callback_on_step_end"], given[_NAMES]
        if hasattr(on_step_end, "tensor_inputs"):  # diffusers' PipelineCallback and its like
            names = list(on_step_end.tensor_inputs)
        for name in names:
            if name not in self._callback_tensor_inputs:
                refuse(_NAMES, name, f"are {', '.join(self._callback_tensor_inputs)}")
        if given["callback"] is not None and "latents" not in names:
            names = [*names, "latents"]
        class_name = self._scheduler_class(scheduler)
        for name in ("timesteps", "sigmas"):
            if given.get(name) is not None and not takes_schedule(class_name, name):
                refuse(name, given[name], f"is none with {class_name}")
        order = 2 if class_name in TWO_RUNS else 1
        watcher = step_callback(
            self, on_step_end, given["callback"], given["callback_steps"], order
        )
        options = {name: given[name] for name in _SAME if name in given}
        if given.get("guidance_rescale"):
            options["guidance_rescale"] = given["guidance_rescale"]
        if given.get("mask_image") is not None:
            options["keep_unmasked"] = False
        out = self._pipeline(
            **options,
            sampler=scheduler,
            output_type="np" if output_type == "pt" else output_type,
            callback_on_step_end=watcher,
            callback_on_step_end_tensor_inputs=names,
        )
        images = out.images
        if output_type == "pt":
            images = as_used(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        elif output_type == "latent":
            images = as_used(images)
        return self._result(images) if given["return_dict"] else (images, None)

    def _result(self, images: Any) -> Any:
        return StableDiffusionPipelineOutput(images)


class StableDiffusionPipeline(_Callable):
    """Text to image."""

    _callback_tensor_inputs: ClassVar[list[str]] = [*_LATENTS]
    _corrections: ClassVar[dict[str, Any]] = {"steps_offset": 1, "clip_sample": False}
    _signature = _call_signature(
        _SIZE,
        _STEPS,
        _GUIDED,
        _START,
        _EMBEDS,
        _ADAPTER,
        _RESULT,
        {"guidance_rescale": 0.0},
        _END,
    )


class StableDiffusionImg2ImgPipeline(_Callable):
    """Image to image."""

    _callback_tensor_inputs: ClassVar[list[str]] = [*_LATENTS]
    _corrections: ClassVar[dict[str, Any]] = {"steps_offset": 1, "clip_sample": False}
    _signature = _call_signature(
        {"image": None, "strength": 0.8}, _STEPS, _GUIDED, _EMBEDS, _ADAPTER, _RESULT, _END
    )

    def _run(self, given: dict[str, Any]) -> Any:
        _need(given, "image")
        return super()._run(given)


class StableDiffusionInpaintPipeline(_Callable):
    """Inpainting, with networks of 4 and of 9 channels.

    As in diffusers, pixels that are not masked change a little unless `padding_mask_crop` is given;
    `textopia_fast.Pipeline` keeps them.
    """

    _callback_tensor_inputs: ClassVar[list[str]] = [*_LATENTS, "mask", "masked_image_latents"]
    _corrections: ClassVar[dict[str, Any]] = {"steps_offset": 1, "skip_prk_steps": True}
    _signature = _call_signature(
        {"image": None, "mask_image": None, "masked_image_latents": None},
        _SIZE,
        {"padding_mask_crop": None, "strength": 1.0},
        _STEPS,
        _GUIDED,
        _START,
        _EMBEDS,
        _ADAPTER,
        _RESULT,
        _END,
    )

    def _run(self, given: dict[str, Any]) -> Any:
        _need(given, "image", "mask_image")
        facts = self._pipeline.directory.facts
        given["height"] = given["height"] or facts.default_height
        given["width"] = given["width"] or facts.default_width
        return super()._run(given)


class LatentConsistencyModelPipeline(_Callable):
    """Text to image in a few steps, for networks distilled together with their guidance."""

    _callback_tensor_inputs: ClassVar[list[str]] = ["latents", "prompt_embeds", "w_embedding"]
    _signature = _call_signature(
        _SIZE,
        {
            "num_inference_steps": 4,
            _ORIGINAL_STEPS: None,
            "timesteps": None,
            "guidance_scale": 8.5,
            "num_images_per_prompt": 1,
            "generator": None,
        },
        _START,
        {"prompt_embeds": None},
        _ADAPTER,
        _RESULT,
        _END,
    )

    def _run(self, given: dict[str, Any]) -> Any:
        if self._pipeline.directory.facts.time_cond_proj_dim is None:
            raise UnsupportedModelError(
                "LatentConsistencyModelPipeline: the U-Net has no input 'timestep_cond'.",
                hint="StableDiffusionPipeline runs this model, with an LCMScheduler, too.",
                component="unet",
            )
        scheduler = self._scheduler or self._own
        steps = given.pop(_ORIGINAL_STEPS)
        if steps is not None:
            config = {**scheduler.config, _ORIGINAL_STEPS: steps}
            scheduler = stand_in(self._scheduler_class(scheduler), config)
        return self._generate(given, scheduler)


def _need(given: dict[str, Any], *names: str) -> None:
    for name in names:
        if given[name] is None:
            refuse(name, None, "is what `textopia_fast.Pipeline` takes under that name")
