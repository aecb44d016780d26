"""What a call of a pipeline does once it has been read: text, start, loop, pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _core, images
from .arrays import Array, to_host
from .callbacks import StepEnd, StepEndCallback
from .checks import refuse
from .editing import Edit
from .models.facts import DirectoryFacts
from .noise_streams import Stream, draw
from .parts import PreviewCallback, embed, run_loop, step_end, watcher
from .request import Request
from .samplers import Program, StepByStep
from .sampling import sample
from .schedulers.config import Plan
from .schedulers.draws import unused_draws
from .stages import Graphs, StageClock
from .start import Start, make_start
from .variation import Variation

__all__ = ["Job", "Watch", "generate"]


@dataclass(frozen=True, eq=False)
class Job:
    """A call that has been read and planned.

    Attributes:
        request: What was asked for, checked.
        plan, program: How it is sampled.
        guidance: Of every network run.
        is_guided: Whether the negative half runs at all.
        edit: Image-to-image and inpainting; None from noise.
        embeds, negative_embeds: The caller's embeddings, float32 [N, T, D], or None.
        images_per_prompt: Images that share a row of the embeddings.
        latents: The caller's start, or None.
        stream: Where all noise comes from.
        variation: Of the start noise, or None.
    """

    request: Request
    plan: Plan
    program: Program | StepByStep
    guidance: list[float]
    is_guided: bool
    edit: Edit | None
    embeds: Array | None
    negative_embeds: Any
    images_per_prompt: int
    latents: Any
    stream: Stream
    variation: Variation | None


@dataclass(frozen=True, eq=False)
class Watch:
    """Who looks at a call and may end it.

    `owner` is the pipeline that `callback_on_step_end` is told of, `names` what it asks for.
    """

    owner: Any
    cancel: _core.CancelToken | None
    progress: Any
    preview: PreviewCallback | None
    callback_on_step_end: StepEndCallback | None
    names: tuple[str, ...]


def generate(
    graphs: Graphs, facts: DirectoryFacts, job: Job, watch: Watch, clock: StageClock
) -> Any:
    """The pictures of a job, as its `output_type` says. Raises what `Pipeline.__call__` raises."""
    positive, negative = embed(
        graphs.text_encoder,
        job.request,
        job.embeds,
        job.negative_embeds,
        job.images_per_prompt,
        job.is_guided,
        watch.cancel,
        graphs.batching.gpu,
    )
    clock.lap("text_encoder")
    start = make_start(
        job.request,
        facts,
        job.edit,
        graphs.encoder,
        job.latents,
        job.program,
        job.plan,
        job.stream,
        job.variation,
        watch.cancel,
        graphs.batching.gpu,
        wants_masked="masked_image_latents" in watch.names,
    )
    if job.edit is not None:
        clock.lap("vae_encoder")
    latents = _denoise(graphs, job, watch, clock, start, positive, negative)
    clock.lap("denoise")
    pictures = _finish(graphs, job, latents, watch.cancel)
    clock.lap("vae_decoder")
    return pictures


def _denoise(
    graphs: Graphs,
    job: Job,
    watch: Watch,
    clock: StageClock,
    start: Start,
    positive: Array,
    negative: Array | None,
) -> Array:
    name, program = graphs.embedding_input, job.program
    cond = {name: positive, **start.inputs}
    uncond = None if negative is None else {name: negative, **start.inputs}
    gpu = graphs.batching.gpu
    is_staying = gpu is not None and job.request.output_type == "dlpack"
    # A callback may turn guidance off at any run.
    may_drop = watch.callback_on_step_end is not None or any(g == 1.0 for g in job.guidance)
    denoiser = graphs.batching.denoiser(
        start.latents.shape,
        cond,
        uncond,
        watch.cancel,
        is_mixed=uncond is not None and may_drop,
    )
    latents = run_loop(
        sample,
        denoiser.predicting(program.prediction),
        start.latents,
        program,
        cond=cond,
        uncond=uncond,
        guidance=job.guidance,
        guidance_rescale=job.request.guidance_rescale,
        noise=job.stream,
        **start.blended,
        cancel=watch.cancel,
        deadline=clock.remaining(),
        progress=watch.progress if isinstance(watch.progress, _core.Progress) else None,
        on_step=watcher(watch.progress, watch.preview, program.step_count),
        wants_denoised=watch.preview is not None,
        on_evaluation=_step_end(job, watch, name, cond, uncond, start),
        on_device=is_staying,
    )
    if gpu is not None and is_staying and isinstance(latents, np.ndarray):
        latents = _core.DeviceArray(gpu, latents, "latents")  # a callback ended the loop
    if job.request.noise.kind == "generator" and isinstance(program, Program):
        for _ in range(unused_draws(job.plan, program)):
            draw(job.stream, start.latents.shape)
    return latents


def _step_end(
    job: Job,
    watch: Watch,
    embedding_input: str,
    cond: dict[str, Array],
    uncond: dict[str, Array] | None,
    start: Start,
) -> StepEnd | None:
    """What calls the caller's `callback_on_step_end` from the loop, or None."""
    if watch.callback_on_step_end is None:
        return None
    if isinstance(job.program, StepByStep):
        refuse("callback_on_step_end", job.program.name, "are samplers that are traced")
    return step_end(
        watch.callback_on_step_end,
        watch.names,
        watch.owner,
        job.request.largest_guidance,
        job.program,
        job.plan,
        embedding_input,
        cond,
        uncond,
        **start.variables,
    )


def _finish(graphs: Graphs, job: Job, latents: Array, cancel: _core.CancelToken | None) -> Any:
    if job.request.output_type in ("latent", "dlpack"):
        return latents
    pictures = images.to_numpy(graphs.decoder.decode(to_host(latents), cancel))
    edit = job.edit
    if edit is not None:
        pictures = edit.finish(pictures)
    if job.request.output_type != "pil":
        return pictures
    drawn = images.to_pil(pictures)
    crop = None if edit is None else edit.crop
    return drawn if crop is None else [crop.put_back(picture) for picture in drawn]
