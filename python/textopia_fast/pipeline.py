"""`Pipeline`: text to image over a model directory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _core, images
from .arrays import to_float32
from .errors import (
    ConfigurationError,
    EngineClosedError,
    InvalidRequestError,
)
from .models import ModelDirectory, open_directory
from .models.facts import DirectoryFacts
from .noise import Noise, draw
from .request import (
    NOISE_KINDS,
    OUTPUT_TYPES,
    Request,
    check_choice,
    check_number,
    check_size,
    check_steps,
    expand_prompts,
    expand_seeds,
    reject_unsupported,
)
from .samplers import Schedule
from .samplers.scheduler_config import from_config, trace_plan
from .sampling import sample
from .stages import Graphs, StageClock, TextEncoder, check_embeddings

ProgressCallback = Callable[[int, int], Any]
PreviewCallback = Callable[[int, np.ndarray], Any]


@dataclass(frozen=True)
class Output:
    """What a call returns.

    Attributes:
        images: A list of PIL images, or float32 [N, H, W, 3] in 0..1 ("np"), or latents [N, C,
            h, w] ("latent").
        seeds: The seed of each image.
        timings: Milliseconds per stage: "text_encoder", "denoise", "vae_decoder", "total".
        parameters: What was asked for, by name, with every default filled in.
    """

    images: Any
    seeds: tuple[int, ...]
    timings: Mapping[str, float]
    parameters: Mapping[str, Any]


class Pipeline:
    """A Stable Diffusion model directory, ready to make images. Made by `Pipeline.from_pretrained`.

    Calls keep no state on the object: any number of threads may call one pipeline at the same time,
    and get what they would get alone.
    """

    def __init__(self, directory: ModelDirectory, *, threads: int | None = None) -> None:
        self.directory = directory
        self._graphs: Graphs | None = Graphs.open(directory, threads)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        device: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        provider: str | None = None,
    ) -> Pipeline:
        """Opens "tiny-shapes" (bundled) or a local directory in the diffusers/optimum ONNX layout.

        Args:
            name_or_path: Nothing is ever downloaded.
            device: "auto" or "cpu".
            precision: "auto" or "fp32": graphs run as exported.
            threads: Threads of one graph run; None takes one per CPU that this process may use.
            provider: None or "cpu", ONNX Runtime's CPU provider.

        Raises:
            ModelError: Something is wrong with the directory; all that was found stands in one
                message.
            ConfigurationError: No ONNX Runtime is installed, or an option that this version does
                not have.
        """
        for name, value, allowed in (
            ("device", device, ("auto", "cpu")),
            ("precision", precision, ("auto", "fp32")),
            ("provider", provider, (None, "cpu")),
        ):
            if value not in allowed:
                raise ConfigurationError(
                    f"{name}: got {value!r:.80}; this version has {', '.join(map(repr, allowed))}.",
                    param=name,
                )
        return cls(open_directory(name_or_path), threads=threads)

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 50,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        guidance_scale: float = 7.5,
        negative_prompt: str | Sequence[str] | None = None,
        num_images_per_prompt: int = 1,
        eta: float = 0.0,
        latents: Any = None,
        prompt_embeds: Any = None,
        negative_prompt_embeds: Any = None,
        output_type: str = "pil",
        *,
        seed: int | Sequence[int] | None = None,
        sampler: str | Callable[..., Any] | None = None,
        schedule: str | Schedule | None = None,
        sampler_options: Mapping[str, Any] | None = None,
        noise: str = "torch",
        cancel: _core.CancelToken | None = None,
        deadline: float | None = None,
        progress: ProgressCallback | _core.Progress | None = None,
        preview: PreviewCallback | None = None,
        guidance_rescale: float | None = None,
        clip_skip: int | None = None,
        generator: Any = None,
        callback_on_step_end: Any = None,
    ) -> Output:
        """Makes images. Names and defaults are diffusers'; `seed` and what follows it are ours.

        Args:
            prompt: One text or a list; or give `prompt_embeds`.
            height, width: Pixels, multiples of the VAE's factor; None for the model's own size.
            num_inference_steps: 1 to 1000.
            timesteps, sigmas: A schedule of one's own, instead of `num_inference_steps`.
            guidance_scale: Classifier-free guidance; 1 or less skips the negative half.
            negative_prompt: One text for all, or one per prompt.
            num_images_per_prompt: Images of one prompt stand together in the result.
            eta: Noise of DDIM and TCD (other samplers ignore it, as in diffusers).
            latents: Start noise, float32 [N, C, H/f, W/f], unit normal.
            prompt_embeds, negative_prompt_embeds: float32 [N, T, D] instead of the texts.
            output_type: "pil", "np" (float32 [N, H, W, 3] in 0..1) or "latent".
            seed: Image k gets seed + k and equals the image made alone with that seed; or one seed
                per image; None draws one (see `Output.seeds`).
            sampler: A name of `tx.samplers` or a function of one's own; None follows
                scheduler_config.json.
            schedule: "karras", "exponential", ... or a `Schedule`; None follows the configuration.
            sampler_options: Keyword arguments of the sampler.
            noise: Whose random numbers: "torch" (a seed gives diffusers' picture), "cuda" or
                "philox".
            cancel: A `CancelToken`.
            deadline: Seconds that the call may take.
            progress: `progress(step, total)` after each step, or a `Progress` to poll.
            preview: `preview(step, denoised)` after each step, denoised latents float32
                [N, C, h, w].
            guidance_rescale, clip_skip, generator, callback_on_step_end: Of diffusers; not in this
                version, and refused rather than ignored.

        Raises:
            InvalidRequestError, UnsupportedParameterError, GenerationCancelled,
            DeadlineExceededError, NumericalError, ExecutionError, EngineClosedError.
        """
        graphs = self._graphs  # a call that runs keeps the graphs, also when another thread closes
        if graphs is None:
            raise EngineClosedError("pipeline: it was closed; open the model again.")
        reject_unsupported(
            guidance_rescale=guidance_rescale or None,
            clip_skip=clip_skip,
            generator=generator,
            callback_on_step_end=callback_on_step_end,
        )
        clock = StageClock(deadline, cancel)
        if (prompt is None) == (prompt_embeds is None):
            raise InvalidRequestError(
                "prompt: give exactly one of `prompt` and `prompt_embeds`.", param="prompt"
            )
        embeds = None if prompt_embeds is None else to_float32(prompt_embeds, "prompt_embeds")
        texts = prompt if embeds is None else [""] * len(embeds)
        prompts, negatives = expand_prompts(texts, negative_prompt, num_images_per_prompt)
        facts = self.directory.facts
        factor = facts.vae_scale_factor
        request = Request(
            prompts=prompts,
            negative_prompts=negatives,
            height=check_size("height", height, facts.default_height, factor),
            width=check_size("width", width, facts.default_width, factor),
            steps=check_steps(num_inference_steps),
            guidance=check_number("guidance_scale", guidance_scale),
            seeds=expand_seeds(seed, len(prompts)),
            output_type=check_choice("output_type", output_type, OUTPUT_TYPES),
            noise=check_choice("noise", noise, NOISE_KINDS),
        )
        plan = from_config(
            self.directory.scheduler_config,
            request.steps,
            sampler=sampler,
            schedule=schedule,
            timesteps=timesteps,
            sigmas=sigmas,
            eta=check_number("eta", eta),
            **dict(sampler_options or {}),
        )
        program = trace_plan(plan)

        positive, negative = _embed(
            graphs.text_encoder,
            request,
            embeds,
            negative_prompt_embeds,
            num_images_per_prompt,
            cancel,
        )
        clock.lap("text_encoder")

        stream = Noise(request.noise, request.seeds).stream(request.image_count)
        result = sample(
            graphs.denoiser,
            _start(request, facts, latents, stream) * np.float32(program.initial_scale),
            program,
            cond={graphs.embedding_input: positive},
            uncond=None if negative is None else {graphs.embedding_input: negative},
            guidance=1.0 if negative is None else request.guidance,
            noise=stream,
            cancel=cancel,
            deadline=clock.remaining(),
            progress=progress if isinstance(progress, _core.Progress) else None,
            on_step=_watch(progress, preview, program.step_count),
            wants_denoised=preview is not None,
        )
        clock.lap("denoise")

        if request.output_type == "latent":
            pictures: Any = result
        else:
            pictures = images.to_numpy(graphs.decoder.decode(result, cancel))
            if request.output_type == "pil":
                pictures = images.to_pil(pictures)
        clock.lap("vae_decoder")
        return Output(
            pictures, request.seeds, clock.timings(), _parameters(request, program.name, schedule)
        )

    def close(self) -> None:
        """Frees the graphs once running calls have ended; later calls raise EngineClosedError."""
        self._graphs = None

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _embed(
    encoder: TextEncoder,
    request: Request,
    embeds: np.ndarray | None,
    negative_embeds: Any,
    images_per_prompt: int,
    cancel: _core.CancelToken | None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Embeddings of every image, float32 [B, T, D]; the negative ones are None without guidance."""

    def given(name: str, value: Any) -> np.ndarray:
        rows = np.repeat(to_float32(value, name), images_per_prompt, axis=0)
        return check_embeddings(name, rows, request.image_count)

    if embeds is None:
        positive = encoder.encode(request.prompts, cancel)
    else:
        positive = given("prompt_embeds", embeds)
    if request.guidance <= 1.0:
        return positive, None
    if negative_embeds is None:
        return positive, encoder.encode(request.negative_prompts, cancel)
    return positive, given("negative_prompt_embeds", negative_embeds)


def _start(
    request: Request, facts: DirectoryFacts, latents: Any, stream: _core.NoiseStream
) -> np.ndarray:
    """Unit normal start, float32 [B, C, H/f, W/f]: the caller's, or the first draw of `stream`."""
    factor = facts.vae_scale_factor
    size = (request.height // factor, request.width // factor)
    shape = (request.image_count, facts.latent_channels, *size)
    if latents is None:
        return draw(stream, shape)
    start = to_float32(latents, "latents")
    if start.shape != shape:
        raise InvalidRequestError(
            f"latents: shape {start.shape}; this request needs {shape}.", param="latents"
        )
    return start


def _watch(
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


def _parameters(request: Request, sampler: str, schedule: Any) -> dict[str, Any]:
    return {
        "prompt": list(request.prompts),
        "negative_prompt": list(request.negative_prompts),
        "num_inference_steps": request.steps,
        "guidance_scale": request.guidance,
        "height": request.height,
        "width": request.width,
        "sampler": sampler,
        "schedule": schedule if isinstance(schedule, str) else getattr(schedule, "name", None),
        "noise": request.noise,
    }
