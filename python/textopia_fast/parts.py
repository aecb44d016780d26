"""The parts of a pipeline's call that stand between the request and the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import _core
from .arrays import to_float32
from .editing import Edit
from .errors import InvalidRequestError
from .models.facts import DirectoryFacts
from .noise_streams import Stream, draw
from .request import Request
from .samplers import Schedule
from .samplers.scheduler_config import Plan
from .stages import TextEncoder, to_embeddings
from .variation import Variation

__all__ = ["PreviewCallback", "embed", "parameters_of", "start_latents", "watcher"]

PreviewCallback = Callable[[int, np.ndarray], Any]


def embed(
    encoder: TextEncoder,
    request: Request,
    embeds: np.ndarray | None,
    negative_embeds: Any,
    images_per_prompt: int,
    is_guided: bool,
    cancel: _core.CancelToken | None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Embeddings of every image, float32 [B, T, D]; negative ones only where `is_guided`."""

    if embeds is None:
        positive = encoder.encode(request.prompts, cancel)
    else:
        positive = np.repeat(embeds, images_per_prompt, axis=0)
    if not is_guided:
        return positive, None
    if negative_embeds is None:
        return positive, encoder.encode(request.negative_prompts, cancel)
    name, prompt_count = "negative_prompt_embeds", request.image_count // images_per_prompt
    negative = to_embeddings(name, negative_embeds)
    if len(negative) not in (1, prompt_count):
        raise InvalidRequestError(
            f"{name}: shape {negative.shape} for {prompt_count} prompts, allowed are 1 or "
            f"{prompt_count} rows.",
            param=name,
        )
    return positive, np.repeat(negative, request.image_count // len(negative), axis=0)


def start_latents(
    request: Request,
    facts: DirectoryFacts,
    latents: Any,
    stream: Stream,
    variation: Variation | None,
) -> np.ndarray:
    """Unit normal start, float32 [B, C, H/f, W/f]: the caller's, or a draw of `stream`, varied."""
    factor = facts.vae_scale_factor
    size = (request.height // factor, request.width // factor)
    shape = (request.image_count, facts.latent_channels, *size)
    if latents is None:
        start = draw(stream, shape)
        return start if variation is None else variation.apply(start, request.noise)
    if variation is not None:
        raise InvalidRequestError(
            "latents: given with subseed or seed_resize_from, allowed is one of them.",
            param="latents",
        )
    start = to_float32(latents, "latents")
    if start.shape != shape:
        raise InvalidRequestError(
            f"latents: shape {start.shape}, allowed for this request is {shape}.", param="latents"
        )
    return start


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
