"""Unit normal tensors from the caller's torch generators, as diffusers draws them."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigurationError, InvalidRequestError

__all__ = ["import_torch", "randn"]


def import_torch() -> Any:
    """The module torch.

    Raises:
        ConfigurationError: It is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise ConfigurationError(
            "interop: this works on torch tensors, and torch is not installed.",
            hint="Install torch. textopia_fast.Pipeline and textopia_fast.sample do without it.",
        ) from error
    return torch


def randn(shape: Any, generator: Any, device: Any, dtype: Any) -> Any:
    """A unit normal tensor of `shape` on `device`.

    generator: None (torch's own), one torch.Generator, or one per image. Generators of the CPU
    draw there and the result is moved.

    Raises:
        InvalidRequestError: Their number is not that of the images, or a generator is of another
            kind of device.
    """
    torch = import_torch()
    generators = list(generator) if isinstance(generator, (list, tuple)) else [generator]
    if len(generators) not in (1, shape[0]):
        raise InvalidRequestError(
            f"generator: {len(generators)} for {shape[0]} images, allowed are one, or one per "
            "image.",
            param="generator",
        )
    for one in generators:
        if one is not None and not isinstance(one, torch.Generator):
            raise InvalidRequestError(
                f"generator: {type(one).__name__}, allowed are torch.Generator or a list of them.",
                param="generator",
            )
    if len(generators) == 1:
        return _one(torch, shape, generators[0], device, dtype)
    size = (1, *shape[1:])
    return torch.cat([_one(torch, size, one, device, dtype) for one in generators])


def _one(torch: Any, shape: Any, generator: Any, device: Any, dtype: Any) -> Any:
    there = device
    if generator is not None and generator.device.type != device.type:
        if generator.device.type != "cpu":
            raise InvalidRequestError(
                f"generator: of {generator.device}, allowed for latents on {device} are those of "
                "the same device or of the CPU.",
                param="generator",
            )
        there = generator.device
    return torch.randn(tuple(shape), generator=generator, device=there, dtype=dtype).to(device)
