"""What one call of the pipeline asks for, checked once and immutable from then on."""

from __future__ import annotations

import math
import numbers
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .errors import InvalidRequestError, UnsupportedParameterError
from .noise import MAX_SEED, check_seed

# Limits of one request: beyond them a typo, not a wish.
MAX_STEPS = 1000
MAX_IMAGES = 256
MAX_SIZE = 8192
OUTPUT_TYPES = ("pil", "np", "latent")
NOISE_KINDS = ("torch", "cuda", "philox")


@dataclass(frozen=True)
class Request:
    """A checked request. Image k belongs to `prompts[k]` and `seeds[k]`."""

    prompts: tuple[str, ...]
    negative_prompts: tuple[str, ...]
    height: int
    width: int
    steps: int
    guidance: float
    seeds: tuple[int, ...]
    output_type: str
    noise: str

    @property
    def image_count(self) -> int:
        return len(self.prompts)


def expand_prompts(
    prompt: Any, negative_prompt: Any, images_per_prompt: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Prompt and negative prompt of every image; the images of one prompt stand together.

    Raises:
        InvalidRequestError: Not strings, an empty list, or lists of different lengths.
    """
    prompts = _texts("prompt", prompt)
    count = _integer("num_images_per_prompt", images_per_prompt, 1, MAX_IMAGES)
    if len(prompts) * count > MAX_IMAGES:
        raise InvalidRequestError(
            f"prompt: {len(prompts)} prompts times {count} images; at most {MAX_IMAGES} a call.",
            param="num_images_per_prompt",
            limit=MAX_IMAGES,
        )
    negative = ("",) if negative_prompt is None else _texts("negative_prompt", negative_prompt)
    if len(negative) == 1 and (negative_prompt is None or isinstance(negative_prompt, str)):
        negative = negative * len(prompts)
    if len(negative) != len(prompts):
        raise InvalidRequestError(
            f"negative_prompt: {len(negative)} texts for {len(prompts)} prompts; one text, or one "
            f"per prompt.",
            param="negative_prompt",
        )
    return _repeat(prompts, count), _repeat(negative, count)


def expand_seeds(seed: Any, image_count: int) -> tuple[int, ...]:
    """The seed of every image: an int s gives image k the seed s + k; None draws one.

    Raises:
        InvalidRequestError: Out of range, not an integer, or a list of another length.
    """
    if seed is None:
        seed = secrets.randbelow(2**32)
    if isinstance(seed, Sequence) and not isinstance(seed, str | bytes):
        if len(seed) != image_count:
            raise InvalidRequestError(
                f"seed: {len(seed)} seeds for {image_count} images; one integer, or one per image.",
                param="seed",
            )
        return tuple(check_seed(value) for value in seed)
    first = check_seed(seed)
    if first + image_count - 1 > MAX_SEED:
        raise InvalidRequestError(
            f"seed: {first} + {image_count - 1} for the last image is above {MAX_SEED}.",
            param="seed",
            limit=MAX_SEED,
        )
    return tuple(first + k for k in range(image_count))


def check_size(name: str, value: Any, default: int, multiple: int) -> int:
    """`value`, or `default` for None, in pixels; a positive multiple of the VAE's factor."""
    if value is None:
        return default
    size = _integer(name, value, 1, MAX_SIZE)
    if size % multiple:
        raise InvalidRequestError(
            f"{name}: got {size}; it has to be divisible by {multiple}.",
            param=name,
            hint=f"The nearest sizes are {size // multiple * multiple or multiple} "
            f"and {(size // multiple + 1) * multiple}.",
        )
    return size


def check_steps(value: Any) -> int:
    """`num_inference_steps` as an int in 1..1000."""
    return _integer("num_inference_steps", value, 1, MAX_STEPS)


def check_number(name: str, value: Any) -> float:
    """A finite real number (booleans are none)."""
    if (
        isinstance(value, bool)
        or not isinstance(value, numbers.Real)
        or not math.isfinite(float(value))
    ):
        raise InvalidRequestError(
            f"{name}: got {value!r:.80}; a finite number is needed.", param=name
        )
    return float(value)


def check_choice(name: str, value: Any, allowed: Sequence[str]) -> str:
    """`value` when it is one of `allowed`."""
    if value not in allowed:
        raise InvalidRequestError(
            f"{name}: got {value!r:.80}; allowed are {', '.join(allowed)}.", param=name
        )
    return value


def reject_unsupported(**given: Any) -> None:
    """Raises for parameters that diffusers has and this version cannot honour (None: not given)."""
    for name, value in given.items():
        if value is not None:
            raise UnsupportedParameterError(
                f"{name}: got {value!r:.80}; this version cannot honour it.", param=name
            )


def _texts(name: str, value: Any) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if (
        not isinstance(texts, Sequence)
        or not texts
        or not all(isinstance(text, str) for text in texts)
    ):
        raise InvalidRequestError(
            f"{name}: got {value!r:.80}; a string or a non-empty list of strings is needed.",
            param=name,
        )
    return tuple(texts)


def _integer(name: str, value: Any, low: int, high: int) -> int:
    is_integer = hasattr(value, "__index__") and not isinstance(value, bool)
    if not is_integer or not low <= int(value) <= high:
        raise InvalidRequestError(
            f"{name}: got {value!r:.80}; an integer from {low} to {high} is needed.",
            param=name,
            limit=high,
        )
    return int(value)


def _repeat(texts: tuple[str, ...], count: int) -> tuple[str, ...]:
    return tuple(text for text in texts for _ in range(count))
