"""What one call of the pipeline asks for, checked once and immutable from then on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .checks import check_choice, check_integer, refuse, shown
from .errors import InvalidRequestError, UnsupportedParameterError
from .noise import MAX_SEED, NOISE_KINDS, Noise, check_seed, is_list_of_seeds

__all__ = [
    "OUTPUT_TYPES",
    "Request",
    "check_size",
    "check_steps",
    "choose_noise",
    "expand_prompts",
    "expand_seeds",
]

# Limits of one request: beyond them a typo, not a wish.
MAX_STEPS = 1000
MAX_IMAGES = 256
MAX_SIDE = 8192
OUTPUT_TYPES = ("pil", "np", "latent", "dlpack")


@dataclass(frozen=True)
class Request:
    """A checked request. Image k belongs to `prompts[k]` and, where there are, `seeds[k]`."""

    prompts: tuple[str, ...]
    negative_prompts: tuple[str, ...]
    height: int
    width: int
    steps: int
    guidance: float | tuple[float, ...]
    guidance_rescale: float
    guidance_interval: tuple[float, float] | None
    seeds: tuple[int, ...]
    output_type: str
    noise: Noise

    @property
    def image_count(self) -> int:
        """How many images are made."""
        return len(self.prompts)

    @property
    def largest_guidance(self) -> float:
        """The guidance, or the largest where every step has its own."""
        return max(self.guidance) if isinstance(self.guidance, tuple) else self.guidance


def expand_prompts(
    prompt: Any, negative_prompt: Any, images_per_prompt: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Prompt and negative prompt of every image; the images of one prompt stand together.

    Raises:
        InvalidRequestError: Not strings, an empty list, or lists of different lengths.
    """
    prompts = _texts("prompt", prompt)
    count = check_integer("num_images_per_prompt", images_per_prompt, 1, MAX_IMAGES)
    if len(prompts) * count > MAX_IMAGES:
        raise InvalidRequestError(
            f"prompt: {len(prompts)} prompts times {count} images, allowed are {MAX_IMAGES} images "
            "a call.",
            param="num_images_per_prompt",
            limit=MAX_IMAGES,
        )
    negative = ("",) if negative_prompt is None else _texts("negative_prompt", negative_prompt)
    if len(negative) == 1 and (negative_prompt is None or isinstance(negative_prompt, str)):
        negative = negative * len(prompts)
    if len(negative) != len(prompts):
        raise InvalidRequestError(
            f"negative_prompt: {len(negative)} texts for {len(prompts)} prompts, allowed is one "
            "text, or one per prompt.",
            param="negative_prompt",
        )
    return _repeat(prompts, count), _repeat(negative, count)


def choose_noise(noise: Any, seed: Any, generator: Any, image_count: int) -> Noise:
    """What the arguments `noise`, `seed` and `generator` of a call ask for.

    Raises:
        InvalidRequestError: One of them cannot be used, or they say different things.
    """
    if generator is not None:
        if seed is not None:
            refuse("seed", seed, "with a generator is none: the generator has its own")
        if noise != "torch":
            refuse("noise", noise, "with a generator is none: the generator draws")
        return Noise.from_generator(generator)
    if isinstance(noise, Noise):
        if seed is not None:
            refuse("seed", seed, "with a Noise is none: the Noise has its own")
        return noise
    return Noise(check_choice("noise", noise, NOISE_KINDS), expand_seeds(seed, image_count))


def expand_seeds(seed: Any, image_count: int, name: str = "seed") -> tuple[int, ...]:
    """The seed of every image: an int s gives image k the seed s + k; None draws one.

    Raises:
        InvalidRequestError: Out of range, not an integer, or a list of another length.
    """
    if seed is None:
        seed = int.from_bytes(os.urandom(4), "little")
    if is_list_of_seeds(seed):
        if len(seed) != image_count:
            raise InvalidRequestError(
                f"{name}: {len(seed)} seeds for {image_count} images, allowed is one integer, or "
                "one per image.",
                param=name,
            )
        return tuple(check_seed(value, name) for value in seed)
    first = check_seed(seed, name)
    if first + image_count - 1 > MAX_SEED:
        raise InvalidRequestError(
            f"{name}: {first} + {image_count - 1} for the last image, allowed are integers "
            f"0..{MAX_SEED}.",
            param=name,
            limit=MAX_SEED,
        )
    return tuple(first + k for k in range(image_count))


def check_size(name: str, value: Any, default: int, multiple: int) -> int:
    """`value`, or `default` for None, in pixels; a positive multiple of the VAE's factor."""
    if value is None:
        return default
    size = check_integer(name, value, 1, MAX_SIDE)
    if size % multiple:
        raise InvalidRequestError(
            f"{name}: got {size}, allowed are multiples of {multiple}.",
            param=name,
            hint=f"The nearest sizes are {size // multiple * multiple or multiple} "
            f"and {(size // multiple + 1) * multiple}.",
        )
    return size


def check_steps(value: Any) -> int:
    """`num_inference_steps` as an int in 1..1000."""
    return check_integer("num_inference_steps", value, 1, MAX_STEPS)


def reject_unsupported(**given: Any) -> None:
    """Raises for parameters that diffusers has and this version cannot honour (None: not given)."""
    for name, value in given.items():
        if value is not None:
            raise UnsupportedParameterError(
                f"{name}: got {shown(value)}, this version cannot honour it.", param=name
            )


def _texts(name: str, value: Any) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if (
        not isinstance(texts, Sequence)
        or not texts
        or not all(isinstance(text, str) for text in texts)
    ):
        refuse(name, value, "are a string or a non-empty list of strings")
    return tuple(texts)


def _repeat(texts: tuple[str, ...], count: int) -> tuple[str, ...]:
    return tuple(text for text in texts for _ in range(count))
