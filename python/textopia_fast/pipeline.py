"""`Pipeline`: text to image, image to image and inpainting over a model directory."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import NoneType
from typing import Any, NoReturn

import numpy as np

from . import _core
from .batching import AUTO
from .callbacks import StepEndCallback
from .checks import check_choice, check_instance, check_number, check_share, refuse
from .devices import check_device
from .editing import need_encoder, read_edit, shorten
from .engines import find_engine
from .errors import EngineClosedError, EngineStateError, InvalidRequestError
from .generation import Job, Watch, generate
from .graph import EngineDirectory
from .guidance import CFG_PP_GUIDANCE, check_guidance, check_interval, reads_uncond, run_guidance
from .input_images import fitting_size
from .models import ModelDirectory, open_directory
from .noise import Noise
from .output import Output
from .parts import PreviewCallback, callback_names, parameters_of, scheduler_of
from .precision import choose_precision
from .providers import choose_provider
from .request import (
    OUTPUT_TYPES,
    Request,
    check_size,
    check_steps,
    choose_noise,
    expand_prompts,
    reject_unsupported,
)
from .samplers import Schedule
from .sampling import check_watchers
from .schedulers.config import from_config, runnable_of
from .stages import Graphs, StageClock
from .variation import read_variation

__all__ = ["Output", "Pipeline"]

ProgressCallback = Callable[[int, int], Any]


class Pipeline:
    """A Stable Diffusion model directory, ready to make images. Made by `Pipeline.from_pretrained`.

    Calls keep no state on the object: any number of threads may call one pipeline at the same time,
    and get what they would get alone.

    Attributes:
        directory: What was opened.
        engine: The compiled graphs that it runs; None where they run as exported, in fp32.
    """

    def __init__(
        self,
        directory: ModelDirectory,
        *,
        engine: EngineDirectory | None = None,
        threads: int | None = None,
        images_per_run: int | str | None = AUTO,
        device: str = "cpu",
        plugin: _core.Plugin | None = None,
    ) -> None:
        """Opens the graphs of a directory that `open_directory` has checked, or of its engine."""
        check_instance("directory", directory, ModelDirectory, "is what open_directory gives")
        engine_types = (EngineDirectory, NoneType)
        check_instance("engine", engine, engine_types, "is what compile_directory gives, or None")
        if engine is not None and plugin is not None:
            refuse("plugin", plugin, "with an engine, which has operators of its own, is None")
        self.directory = directory
        self.engine = engine
        self._graphs: Graphs | None = Graphs.open(
            directory, engine, threads, images_per_run, device, plugin
        )

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        device: str = "auto",
        precision: str = "auto",
        threads: int | None = None,
        provider: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        verify: str = "size",
        images_per_run: int | str | None = AUTO,
    ) -> Pipeline:
        """Opens "tiny-shapes" (bundled) or a local directory in the diffusers/optimum ONNX layout.

        Args:
            name_or_path: Nothing is ever downloaded.
            device: "auto" or "cpu"; "cuda" or "cuda:N" for an NVIDIA GPU (experimental: needs
                onnxruntime-gpu and kernels for that GPU, see docs/gpu-engine.md).
            precision: "fp32": graphs as exported; "bf16": compiled, the first time, for AMX or
                AVX512_BF16, or for a GPU; "int8": the same, and most of the U-Net in int8 but for
                its first and last steps, for AMX or AVX512_VNNI; "fp16": compiled for a GPU;
                "auto": fp16 on a GPU, bf16 on CPUs with AMX, else fp32.
            threads: Threads of one graph run; None takes one per CPU that this process may use.
            provider: "openvino" runs the graphs as exported on OpenVINO, in `precision`; None and
                "auto" are the device's own, which "cpu" is, too, without a GPU.
            cache_dir: Where compiled graphs are kept; None for $TEXTOPIA_CACHE_DIR, else the
                user's cache directory.
            verify: What of kept ones is compared with their checksums: "size" the graphs (of
                weights only the size), "full" all. Damaged ones are compiled again.
            images_per_run: Images of a batch that share one run of the U-Net. "auto" shares where a
                comparison shows that no image changes by a bit, so that an image is the same alone
                and in any batch. A number, or None for all, shares without that promise.

        Raises:
            ModelError: Something is wrong with the directory; all that was found stands in one
                message.
            ConfigurationError: No ONNX Runtime is installed, or an option that this version or
                this machine does not have.
            OutputError: `cache_dir` cannot be written.
        """
        device = "cpu" if isinstance(device, str) and device == "auto" else device
        check_device(device)
        choice = choose_precision(precision, device)
        plugin = choose_provider(provider, choice.precision, threads, device)
        directory = open_directory(name_or_path)
        engine = find_engine(directory, choice, cache_dir=cache_dir, verify=verify, plugin=plugin)
        return cls(
            directory,
            engine=engine,
            threads=threads,
            images_per_run=images_per_run,
            device=device,
            plugin=plugin,
        )

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        guidance_scale: float | Sequence[float] | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        num_images_per_prompt: int = 1,
        eta: float = 0.0,
        latents: Any = None,
        prompt_embeds: Any = None,
        negative_prompt_embeds: Any = None,
        output_type: str = "pil",
        *,
        seed: int | Sequence[int] | None = None,
        sampler: Any = None,
        schedule: str | Schedule | None = None,
        sampler_options: Mapping[str, Any] | None = None,
        noise: str | Noise = "torch",
        subseed: int | Sequence[int] | None = None,
        subseed_strength: float = 0.0,
        seed_resize_from: tuple[int, int] | None = None,
        image: Any = None,
        mask_image: Any = None,
        strength: float | None = None,
        keep_unmasked: bool = True,
        padding_mask_crop: int | None = None,
        masked_image_latents: Any = None,
        cancel: _core.CancelToken | None = None,
        deadline: float | None = None,
        progress: ProgressCallback | _core.Progress | None = None,
        preview: PreviewCallback | None = None,
        guidance_rescale: float | None = None,
        guidance_interval: Sequence[float] | None = None,
        clip_skip: int | None = None,
        generator: Any = None,
        callback_on_step_end: StepEndCallback | None = None,
        callback_on_step_end_tensor_inputs: Sequence[str] | None = None,
    ) -> Output:
        """Makes images. Names and defaults are diffusers'; those from `seed` to `preview` are ours.

        Args:
            prompt: One text or a list; or give `prompt_embeds`.
            height, width: Pixels, multiples of the VAE's factor; None for the model's own size.
            num_inference_steps: 1 to 1000; None for what the model recommends, else 50.
            timesteps, sigmas: A schedule of one's own, instead of `num_inference_steps`.
            guidance_scale: Classifier-free guidance, or one value per step; 1 or less skips the
                negative half. None for what the model recommends, else 7.5. Samplers named cfg_pp
                take 0 to 1, None is 0.6.
            negative_prompt: One text for all, or one per prompt.
            num_images_per_prompt: Images of one prompt stand together in the result.
            eta: Noise of DDIM and TCD (other samplers ignore it, as in diffusers).
            latents: Start noise, float32 [N, C, H/f, W/f], unit normal; with `image`, what is added
                to it. On a GPU this and the embeddings may be arrays there (docs/gpu-engine.md).
            prompt_embeds, negative_prompt_embeds: float32 [N, T, D] instead of the texts.
            output_type: "pil", "np" (float32 [N, H, W, 3] in 0..1), "latent", "dlpack" (on a GPU).
            seed: Image k gets seed + k and equals the image made alone with that seed; or one seed
                per image; None draws one (see `Output.seeds`).
            sampler: A name of `tx.samplers`, a function of one's own, or a scheduler object (of
                diffusers or `interop.diffusers`; its `config` counts); None follows
                scheduler_config.json.
            schedule: "karras", "exponential", ... or a `Schedule`; None follows the configuration.
            sampler_options: Keyword arguments of the sampler; they come before `eta` and the
                configuration.
            noise: Whose random numbers: "torch" (a seed gives diffusers' picture), "cuda",
                "philox" or "brownian" (see `Noise`); or a `Noise`, which brings its own seeds.
            subseed, subseed_strength: Moves the start from the noise of `seed` to that of a second
                seed (image k gets subseed + k), by a part 0..1, as stable-diffusion-webui does. For
                variations of one picture give seed=[s] * N.
            seed_resize_from: (height, width) of a picture whose start noise is put into the middle
                of this one's, which keeps its composition.
            image: Image-to-image: a PIL image, float NumPy [H, W, 3] or [N, H, W, 3] in 0..1 (or
                uint8), a torch tensor [3, H, W] or [N, 3, H, W], or a list of those; one, one per
                prompt, or one per image. Its size, rounded down, is that of the result unless
                `height` and `width` say otherwise.
            mask_image: Inpainting: where `image` is to be painted anew, white (from 0.5 on); a PIL
                image, an array [H, W] or [N, H, W], or a list.
            strength: With `image`: the part of the steps that runs, above 0 up to 1; None for 0.8,
                with `mask_image` for 1.
            keep_unmasked: Puts the input's own pixels back where nothing is masked, so that they
                are the same in the result ("latent" has no pixels). diffusers does that only with
                its `padding_mask_crop`; False gives its pictures, which the VAE changes a little
                everywhere.
            padding_mask_crop: Paints only what is masked and so many pixels around it, in
                `height` x `width`, and puts it back into the picture, whose size the result has.
                One PIL image and mask, `output_type` "pil".
            masked_image_latents: Of inpainting models with 9 channels, latents [N, C, h, w] of the
                masked picture; None encodes it.
            cancel: A `CancelToken`.
            deadline: Seconds that the call may take.
            progress: `progress(step, total)` after each step, or a `Progress` to poll.
            preview: `preview(step, denoised)` after each step, denoised latents float32
                [N, C, h, w].
            callback_on_step_end: `callback(call, step, timestep, values)` after each network
                evaluation (each of diffusers' `timesteps`). It returns a dictionary, whose entries
                replace `values`. `call` is the pipeline with what belongs to this call, among it
                `guidance_scale`, `num_timesteps` and `_interrupt`, which ends the loop when set.
            callback_on_step_end_tensor_inputs: The names in `values`: "latents" (None: it alone),
                "prompt_embeds" ([negative, positive] rows under guidance),
                "negative_prompt_embeds"; with a mask "mask" and "masked_image_latents"; of LCM
                models "w_embedding".
            generator: Instead of a seed, a torch.Generator or one per image: the draws are those of
                diffusers, and so is its state afterwards. NumPy's generators serve, too (see
                `Noise.from_generator`).
            guidance_rescale: 0 to 1, against overexposure: the share of the guided output that has
                the standard deviation of the positive half (Lin et al. 2024).
            guidance_interval: (low, high): guidance only where low < sigma <= high, sigma being the
                noise level in units of the clean latents, 14.6 to 0.03 for Stable Diffusion
                (`Output.parameters["sigmas"]`); elsewhere the negative half is skipped
                (Kynkäänniemi et al. 2024).
            clip_skip: Of diffusers; not in this version, and refused rather than ignored.

        Returns:
            An `Output`: images, seeds, timings, parameters.

        Raises:
            InvalidRequestError: A parameter is not allowed; `details["param"]` names it.
            UnsupportedParameterError: One that this version cannot honour.
            InputImageError: `image` cannot be used.
            UnsupportedModelError: The model's scheduler is not known here: name a `sampler`; or an
                `image` for a model without VAE encoder.
            GenerationCancelled, DeadlineExceededError: As asked for.
            NumericalError: NaN or infinity appeared.
            ExecutionError: A graph failed.
            EngineClosedError: The pipeline was closed.
        """
        graphs = self._open_graphs()
        reject_unsupported(clip_skip=clip_skip)
        if not isinstance(progress, _core.Progress):
            check_watchers(cancel, progress=progress)
        check_watchers(cancel, preview=preview, callback_on_step_end=callback_on_step_end)
        clock = StageClock(deadline, cancel)
        if (prompt is None) == (prompt_embeds is None):
            got = "neither it nor" if prompt is None else "both it and"
            message = f"prompt: got {got} prompt_embeds, allowed is one of them."
            raise InvalidRequestError(message, param="prompt")
        embeds = graphs.embeddings("prompt_embeds", prompt_embeds)
        texts = prompt if embeds is None else [""] * len(embeds)
        prompts, negatives = expand_prompts(texts, negative_prompt, num_images_per_prompt)
        facts, defaults = self.directory.facts, self.directory.defaults
        factor = facts.vae_scale_factor
        if image is None or padding_mask_crop is not None:
            sizes = (facts.default_height, facts.default_width)
        else:
            sizes = fitting_size("image", image, factor)
        chosen = choose_noise(noise, seed, generator, len(prompts))
        stream = chosen.stream(len(prompts))
        variation = read_variation(
            subseed, subseed_strength, seed_resize_from, chosen, len(prompts), factor
        )
        request = Request(
            prompts=prompts,
            negative_prompts=negatives,
            height=check_size("height", height, sizes[0], factor),
            width=check_size("width", width, sizes[1], factor),
            steps=check_steps(
                num_inference_steps
                if num_inference_steps is not None
                else defaults["num_inference_steps"]
            ),
            guidance=check_guidance(
                defaults["guidance_scale"] if guidance_scale is None else guidance_scale
            ),
            guidance_rescale=check_share("guidance_rescale", guidance_rescale or 0.0),
            guidance_interval=check_interval(guidance_interval),
            seeds=chosen.image_seeds(len(prompts)),
            output_type=check_choice("output_type", output_type, OUTPUT_TYPES),
            noise=chosen,
        )
        if padding_mask_crop is not None and output_type != "pil":
            refuse("output_type", output_type, 'is "pil" with padding_mask_crop')
        config, sampler = scheduler_of(self.directory.scheduler_config, sampler)
        plan = from_config(
            config,
            request.steps,
            sampler=sampler,
            schedule=schedule,
            timesteps=timesteps,
            sigmas=sigmas,
            eta=check_number("eta", eta),
            sampler_options=sampler_options,
        )
        edit = read_edit(
            image,
            mask_image,
            strength,
            keep_unmasked,
            (request.height, request.width),
            factor,
            request.image_count // num_images_per_prompt,
            num_images_per_prompt,
            padding_mask_crop,
            masked_image_latents,
        )
        names = callback_names(callback_on_step_end_tensor_inputs, facts, edit)
        if edit is not None:
            need_encoder(graphs.encoder)
            plan = shorten(plan, edit.strength)
        program = runnable_of(plan, inpaint=mask_image is not None and not facts.takes_mask)
        if guidance_scale is None and reads_uncond(program):
            request = replace(request, guidance=CFG_PP_GUIDANCE)
        guidance = run_guidance(plan, program, request.guidance, request.guidance_interval)
        if facts.time_cond_proj_dim is not None:  # the network has its guidance built in
            guidance = [1.0] * len(guidance)
        is_guided = reads_uncond(program) or any(value != 1.0 for value in guidance)

        given = (embeds, negative_prompt_embeds, num_images_per_prompt, latents, stream, variation)
        job = Job(request, plan, program, guidance, is_guided, edit, *given)
        watch = Watch(self, cancel, progress, preview, callback_on_step_end, names)
        pictures = generate(graphs, facts, job, watch, clock)
        used = parameters_of(request, program.name, schedule, plan, edit)
        return Output(pictures, request.seeds, clock.timings(), used)

    def encode_prompt(self, prompt: str | Sequence[str]) -> np.ndarray:
        """Embeddings of one text or several, float32 [N, T, D], as `prompt_embeds` takes them.

        Raises:
            InvalidRequestError: `prompt` is neither a text nor texts.
            EngineClosedError: The pipeline was closed.
        """
        prompts, _ = expand_prompts(prompt, None, 1)
        return self._open_graphs().text_encoder.encode(prompts)

    @property
    def cuda_graphs(self) -> str:
        """Whether the last call's network was replayed as CUDA graphs: "on", "off: " and why not,
        and "off" on the CPU."""
        return self._open_graphs().batching.cuda_graphs

    def __repr__(self) -> str:
        state = "" if self._graphs is not None else ", closed"
        return f"Pipeline({self.directory.name!r}{state})"

    def _open_graphs(self) -> Graphs:
        graphs = self._graphs  # a call that runs keeps them, also when another thread closes
        if graphs is None:
            raise EngineClosedError("pipeline: it was closed; open the model again.")
        return graphs

    def close(self) -> None:
        """Frees the graphs once running calls have ended; later calls raise EngineClosedError."""
        self._graphs = None

    def __reduce__(self) -> NoReturn:
        raise EngineStateError(
            "pipeline: holds open graphs, which cannot be copied or pickled.",
            hint="Share it between threads as it is; in another process, open the model again.",
        )

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
