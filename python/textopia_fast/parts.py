"""The parts of a pipeline's call that stand between the request and the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from . import _core
from .arrays import Array, to_host
from .callbacks import Interrupted, LoopState, RunningCall, StepEnd, StepEndCallback, check_names
from .editing import Edit
from .errors import InvalidRequestError, UnsupportedModelError
from .models.facts import DirectoryFacts
from .models.inpainting import MASK, MASKED_PICTURE
from .request import Request
from .samplers import Program, Schedule
from .schedulers.config import Plan
from .stages import TextEncoder, repeat_rows, to_embeddings
from .tracing.program import Denoise

__all__ = [
    "PreviewCallback",
    "callback_names",
    "embed",
    "parameters_of",
    "run_loop",
    "scheduler_of",
    "step_end",
    "watcher",
]

PreviewCallback = Callable[[int, np.ndarray], Any]


def embed(
    encoder: TextEncoder,
    request: Request,
    embeds: Array | None,
    negative_embeds: Any,
    images_per_prompt: int,
    is_guided: bool,
    cancel: _core.CancelToken | None,
    gpu: _core.Gpu | None,
) -> tuple[Array, Array | None]:
    """Embeddings of every image, float32 [B, T, D]; negative ones only where `is_guided`."""

    positive: Array
    if embeds is None:
        positive = encoder.encode(request.prompts, cancel)
    else:
        positive = repeat_rows(embeds, images_per_prompt)
    if not is_guided:
        return positive, None
    if negative_embeds is None:
        return positive, encoder.encode(request.negative_prompts, cancel)
    name, prompt_count = "negative_prompt_embeds", request.image_count // images_per_prompt
    negative = to_embeddings(name, negative_embeds, gpu)
    if len(negative) not in (1, prompt_count):
        raise InvalidRequestError(
            f"{name}: shape {negative.shape} for {prompt_count} prompts, allowed are 1 or "
            f"{prompt_count} rows.",
            param=name,
        )
    return positive, repeat_rows(negative, request.image_count // len(negative))


def watcher(
    progress: Any, preview: PreviewCallback | None, total: int
) -> Callable[..., None] | None:
    """The per-step callback that `progress` and `preview` need, or None when nobody watches."""
    show = None if isinstance(progress, _core.Progress) else progress
    if show is None and preview is None:
        return None

    def on_step(step: int, latents: np.ndarray, denoised: np.ndarray | None) -> None:
        if show is not None:
            show(step + 1, total)
        if preview is not None:
            preview(step, denoised if denoised is not None else latents)

    return on_step


def scheduler_of(own: Mapping[str, Any], sampler: Any) -> tuple[Mapping[str, Any], Any]:
    """(the scheduler's configuration, the sampler) when `sampler` may be a scheduler object.

    own: The model's configuration, which holds for everything else.
    """
    config = getattr(sampler, "config", None)
    if not isinstance(config, Mapping):
        return own, sampler
    # What the object's class has assumed is no less what it does.
    known = {key: value for key, value in config.items() if key != "_use_default_values"}
    return {**known, "_class_name": type(sampler).__name__}, None


def callback_names(names: Any, facts: DirectoryFacts, edit: Edit | None) -> tuple[str, ...]:
    """The variables that a `callback_on_step_end` asks for, checked.

    Raises:
        InvalidRequestError: This kind of call does not have one of them.
        UnsupportedModelError: An inpainting model was called without a mask.
    """
    is_inpainting = edit is not None and edit.masks is not None
    if facts.takes_mask and not is_inpainting:
        raise UnsupportedModelError(
            "mask_image: none was given, and this inpainting model cannot run without.",
            hint="Give image and mask_image; a mask that is white everywhere paints everything.",
            component="unet",
        )
    allowed = ["latents", "prompt_embeds", "negative_prompt_embeds"]
    if facts.time_cond_proj_dim is not None:
        allowed.append("w_embedding")
    if is_inpainting:
        allowed += ["mask", "masked_image_latents"]
    return check_names(names, allowed)


def step_end(
    function: StepEndCallback,
    names: tuple[str, ...],
    owner: Any,
    guidance: float,
    program: Program,
    plan: Plan,
    embedding_input: str,
    cond: Mapping[str, Array],
    uncond: Mapping[str, Array] | None,
    **others: np.ndarray | None,
) -> StepEnd:
    """What calls `callback_on_step_end` from the loop; `others` are variables beside the graph.

    A callback sees copies on the CPU.
    """
    ports = {"prompt_embeds": embedding_input, "w_embedding": "timestep_cond"}
    ports |= {"mask": MASK, "masked_image_latents": MASKED_PICTURE}
    calls = [i for i in program.instructions if type(i) is Denoise]
    # What the network reads is what diffusers shows, where its class leaves latents unscaled.
    scales = [call.scale_in if plan.vp_latents else 1.0 for call in calls[1:]]
    return StepEnd(
        function,
        RunningCall(owner, guidance, len(calls), uncond is not None),
        names,
        LoopState(ports, _on_host(cond), None if uncond is None else _on_host(uncond), **others),
        program.noise_levels,
        [*scales, plan.latent_scales[-1]],
    )


def _on_host(values: Mapping[str, Array]) -> dict[str, np.ndarray]:
    return {name: to_host(value) for name, value in values.items()}


def run_loop(sample: Callable[..., Array], *args: Any, **options: Any) -> Array:
    """`sample(...)`, or the latents that there were when a callback ended the loop."""
    try:
        return sample(*args, **options)
    except Interrupted as interrupted:
        return interrupted.latents


def parameters_of(
    request: Request, sampler: str, schedule: str | Schedule | None, plan: Plan, edit: Edit | None
) -> dict[str, Any]:
    """What was asked for, by name, with every default filled in."""
    return {
        "prompt": list(request.prompts),
        "negative_prompt": list(request.negative_prompts),
        "num_inference_steps": plan.schedule.step_count,
        "guidance_scale": request.guidance,
        "guidance_rescale": request.guidance_rescale,
        "guidance_interval": request.guidance_interval,
        "height": request.height,
        "width": request.width,
        "sampler": sampler,
        "sampler_options": dict(plan.options),
        "schedule": schedule if isinstance(schedule, str) else None,
        "sigmas": list(plan.schedule.sigmas),
        "noise": request.noise.kind,
        **({} if edit is None else {"strength": edit.strength}),
    }
