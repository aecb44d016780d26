"""What the loop starts from: latents, and what the network sees beside them and the text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import _core
from .arrays import Array, is_on_gpu, to_device, to_float32
from .checks import check_number
from .editing import Edit
from .errors import InvalidRequestError
from .models.facts import DirectoryFacts
from .models.inpainting import MASK, MASKED_PICTURE
from .noise_streams import Stream, draw
from .request import Request
from .samplers import Program, StepByStep
from .schedulers.config import Plan
from .stages import Encoder
from .variation import Variation

__all__ = ["Start", "make_start"]


@dataclass(frozen=True, eq=False)
class Start:
    """Made by `make_start`.

    Attributes:
        latents: float32 [B, C, h, w], in the frame of the program; on the GPU where the caller's
            were.
        inputs: Of the network, beside the text, in both halves alike.
        blended: The arguments of `sample` for programs that blend.
        variables: What callbacks may ask for and the network does not see.
    """

    latents: Array
    inputs: dict[str, np.ndarray] = field(default_factory=dict)
    blended: dict[str, np.ndarray] = field(default_factory=dict)
    variables: dict[str, np.ndarray | None] = field(default_factory=dict)


def make_start(
    request: Request,
    facts: DirectoryFacts,
    edit: Edit | None,
    encoder: Encoder | None,
    latents: Any,
    program: Program | StepByStep,
    plan: Plan,
    stream: Stream,
    variation: Variation | None,
    cancel: _core.CancelToken | None,
    gpu: _core.Gpu | None,
    *,
    wants_masked: bool,
) -> Start:
    """Draws from `stream` in diffusers' order: picture, start noise, masked picture.

    Args:
        latents: The caller's start noise, or None.
        wants_masked: A callback asks for the latents of the masked picture.
    """
    inputs = {}
    if facts.time_cond_proj_dim is not None:
        width = facts.time_cond_proj_dim
        inputs["timestep_cond"] = guidance_embedding(
            check_number("guidance_scale", request.guidance), width, request.image_count
        )
    if edit is None and is_on_gpu(latents):
        on_gpu = to_device(latents, "latents", gpu, "float32", program.initial_scale)
        _check_latents(on_gpu, request, facts, variation)
        return Start(on_gpu, inputs)
    if edit is None or encoder is None:
        noise = _start_noise(request, facts, latents, stream, variation)
        return Start(noise * np.float32(program.initial_scale), inputs)
    known = None
    # A network that sees the masked picture needs the whole one for the start alone.
    if not (facts.takes_mask and edit.starts_from_noise):
        known = edit.encode(encoder, stream, cancel)
    noise = _start_noise(request, facts, latents, stream, variation)
    start = edit.start(known, noise, plan.schedule.sigmas[0], program.initial_scale)
    if edit.masks is None:
        return Start(start, inputs)
    is_seen = facts.takes_mask or wants_masked
    masked = edit.encode_masked(encoder, start.shape, stream, cancel, is_seen=is_seen)
    mask = edit.small_masks(*start.shape[2:])
    if masked is not None and facts.takes_mask:
        return Start(start, {**inputs, MASK: mask, MASKED_PICTURE: masked})
    blended = {"mask": mask, "known_noise": noise}
    if known is not None:
        blended["known"] = known
    return Start(start, inputs, blended, {"mask": mask, "masked_image_latents": masked})


def guidance_embedding(guidance: float, width: int, images: int) -> np.ndarray:
    """The `timestep_cond` of networks distilled with their guidance, float32 [images, width].

    Sines and cosines of 1000 (guidance - 1) at frequencies from 1 to 1e-4, as of timesteps
    (Luo et al. 2023).
    """
    half = width // 2
    # float32 throughout, as in diffusers: the angles are so large that roundings show.
    decay = np.float32(np.log(10000.0)) / np.float32(max(half - 1, 1))
    frequencies = np.exp(np.arange(half, dtype=np.float32) * -decay)
    angles = np.float32(guidance - 1.0) * np.float32(1000.0) * frequencies
    waves = [np.sin(angles), np.cos(angles), np.zeros(width % 2, np.float32)]
    return np.tile(np.concatenate(waves), (images, 1))


def _start_noise(
    request: Request,
    facts: DirectoryFacts,
    latents: Any,
    stream: Stream,
    variation: Variation | None,
) -> np.ndarray:
    """Unit normal start, float32 [B, C, H/f, W/f]: the caller's, or a draw of `stream`, varied."""
    if latents is None:
        start = draw(stream, _shape(request, facts))
        return start if variation is None else variation.apply(start, request.noise)
    start = to_float32(latents, "latents")
    _check_latents(start, request, facts, variation)
    return start


def _shape(request: Request, facts: DirectoryFacts) -> tuple[int, ...]:
    factor = facts.vae_scale_factor
    size = (request.height // factor, request.width // factor)
    return (request.image_count, facts.latent_channels, *size)


def _check_latents(
    start: Array, request: Request, facts: DirectoryFacts, variation: Variation | None
) -> None:
    if variation is not None:
        raise InvalidRequestError(
            "latents: given with subseed or seed_resize_from, allowed is one of them.",
            param="latents",
        )
    shape = _shape(request, facts)
    if start.shape != shape:
        raise InvalidRequestError(
            f"latents: shape {start.shape}, allowed for this request is {shape}.", param="latents"
        )
