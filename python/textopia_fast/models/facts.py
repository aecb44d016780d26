"""Numbers that a pipeline needs, from the parts' configurations and graphs.

A missing key takes a default only where the class that wrote the file has the same one; everything
else that is missing is reported with the file and the key.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..checks import shown
from ..errors import ModelError, ModelFormatError, UnsupportedModelError
from .problems import Problems
from .signature import Ports

__all__ = ["DirectoryFacts", "derive_facts"]

_SCALING_FACTOR = 0.18215  # AutoencoderKL's default
_MAX_POSITIONS = 77  # CLIPTextConfig's default
_MAX_SIZE = 1 << 16

# What OnnxStableDiffusionPipeline has built in, because its directories hold no configurations.
_LEGACY: Mapping[str, Mapping[str, Any]] = {
    "unet": {"sample_size": 64, "in_channels": 4, "out_channels": 4},
    "vae_decoder": {"block_out_channels": [128, 256, 512, 512], "latent_channels": 4},
}


@dataclass(frozen=True)
class DirectoryFacts:
    """Derived numbers.

    Attributes:
        latent_channels: Channels of the latents, usually 4.
        vae_scale_factor: Pixels per latent along one side, `2 ** (levels of the VAE - 1)`.
        scaling_factor: Latents are divided by this before decoding.
        shift_factor: ... and then shifted by this; 0 for Stable Diffusion.
        default_height: Height in pixels when none is asked for.
        default_width: The same for the width.
        cross_attention_dim: Width of the text embedding.
        time_cond_proj_dim: Width of the U-Net's `timestep_cond`, or None when it has none.
        takes_mask: The U-Net sees mask and masked picture behind the latents (9 channels).
        max_tokens: Length of a tokenized prompt with its begin and end.
    """

    latent_channels: int
    vae_scale_factor: int
    scaling_factor: float
    shift_factor: float
    default_height: int
    default_width: int
    cross_attention_dim: int
    time_cond_proj_dim: int | None
    takes_mask: bool
    max_tokens: int


class _Reader:
    """Reads keys of one configuration; notes what is missing or of the wrong kind."""

    def __init__(
        self, name: str, config: Mapping[str, Any], problems: Problems, defaults: Mapping[str, Any]
    ) -> None:
        self.name = name
        self._file = f"{name}/config.json"
        self._config = {**defaults, **config}
        self._problems = problems

    def fail(self, text: str, kind: type[ModelError] = ModelFormatError) -> None:
        self._problems.add(kind(f"{self._file}: {text}.", component=self.name, path=self._file))

    def get(self, key: str) -> Any:
        return self._config.get(key)

    def integer(self, key: str, default: int | None = None) -> int:
        """A positive integer; 1 stands in after a problem was noted."""
        value = self._config.get(key, default)
        if value is None:
            self.fail(f"the key {key!r} is missing")
        elif isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MAX_SIZE:
            self.fail(
                f"{key!r} is {shown(value)}, a whole number from 1 to {_MAX_SIZE:,} is allowed"
            )
        else:
            return value
        return 1

    def real(self, key: str, default: float, positive: bool) -> float:
        value = self._config.get(key)
        if value is None:
            return default
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if (
            not is_number
            or abs(value) > 1e6
            or not math.isfinite(value)
            or (positive and value <= 0)
        ):
            allowed = "a finite number above 0" if positive else "a finite number"
            self.fail(f"{key!r} is {shown(value)}, {allowed} is allowed")
            return default
        return float(value)


def derive_facts(
    configs: Mapping[str, Mapping[str, Any]],
    ports: Mapping[str, Ports],
    tokenizer_config: Mapping[str, Any],
    *,
    legacy: bool,
    problems: Problems,
) -> DirectoryFacts:
    """Derives the numbers; what is wrong goes to `problems`, and then the result means nothing.

    Args:
        configs: Contents of each part's config.json.
        ports: Each part's inputs and outputs.
        tokenizer_config: Contents of tokenizer_config.json, or {}.
        legacy: The directory's class is OnnxStableDiffusionPipeline.
        problems: Receives what is missing or contradicts something else.
    """

    def reader(name: str) -> _Reader:
        return _Reader(name, configs[name], problems, _LEGACY.get(name, {}) if legacy else {})

    unet, vae, text = reader("unet"), reader("vae_decoder"), reader("text_encoder")
    latent_channels = vae.integer("latent_channels", 4)
    scale = _scale_factor(vae)
    height, width = _sample_size(unet)
    if unet.integer("out_channels", 4) != latent_channels:
        unet.fail(
            f"'out_channels' is {shown(unet.get('out_channels'))} but the VAE has "
            f"{latent_channels} latent channels",
            UnsupportedModelError,
        )
    in_channels = unet.integer("in_channels", 4)
    with_mask = 2 * latent_channels + 1  # latents, mask, latents of the masked picture
    if in_channels not in (latent_channels, with_mask):
        unet.fail(
            f"'in_channels' is {in_channels}, supported are {latent_channels}, and {with_mask} for "
            "inpainting: depth models and others do not run in this version",
            UnsupportedModelError,
        )
    _same_size(unet, "in_channels", in_channels, ports["unet"].inputs["sample"].shape[1])
    _same_size(vae, "latent_channels", latent_channels, _channel(ports["vae_decoder"]))
    return DirectoryFacts(
        latent_channels=latent_channels,
        vae_scale_factor=scale,
        scaling_factor=vae.real("scaling_factor", _SCALING_FACTOR, positive=True),
        shift_factor=vae.real("shift_factor", 0.0, positive=False),
        default_height=height * scale,
        default_width=width * scale,
        cross_attention_dim=_cross_attention_dim(unet, text, ports),
        time_cond_proj_dim=_time_cond_dim(unet, ports["unet"]),
        takes_mask=in_channels == with_mask,
        max_tokens=_max_tokens(text, tokenizer_config, ports["text_encoder"], problems),
    )


def _channel(ports: Ports) -> int | str | None:
    return ports.inputs["latent_sample"].shape[1]


def _same_size(config: _Reader, key: str, value: int, in_graph: int | str | None) -> None:
    if isinstance(in_graph, int) and in_graph != value:
        config.fail(f"{key!r} is {value} but the graph has {in_graph}")


def _scale_factor(vae: _Reader) -> int:
    levels = vae.get("block_out_channels")
    if levels is None:
        vae.fail("the key 'block_out_channels' is missing")
    elif not isinstance(levels, list) or not 1 <= len(levels) <= 8:
        vae.fail(f"'block_out_channels' is {shown(levels)}, a list of 1 to 8 sizes is allowed")
    else:
        return 1 << (len(levels) - 1)
    return 1


def _sample_size(unet: _Reader) -> tuple[int, int]:
    """Height and width of the latents that the U-Net was trained on."""
    size = unet.get("sample_size")
    if not isinstance(size, list):
        side = unet.integer("sample_size")
        return side, side
    sides = [n for n in size if isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= 4096]
    if len(size) == 2 == len(sides):
        return sides[0], sides[1]
    unet.fail(f"'sample_size' is {shown(size)}, one or two sizes from 1 to 4,096 are allowed")
    return 1, 1


def _cross_attention_dim(unet: _Reader, text: _Reader, ports: Mapping[str, Ports]) -> int:
    wanted = ports["unet"].inputs["encoder_hidden_states"].shape[2]
    given = ports["text_encoder"].outputs["last_hidden_state"].shape[2]
    configured = unet.get("cross_attention_dim")
    if configured is not None:
        configured = unet.integer("cross_attention_dim")
    sizes = [size for size in (wanted, configured, given) if isinstance(size, int)]
    if not sizes:
        unet.fail("the key 'cross_attention_dim' is missing, and the graph leaves the size free")
        return 1
    if len(set(sizes)) > 1:
        unet.fail(
            f"'cross_attention_dim' is {configured}, the graph takes {wanted} and the text "
            f"encoder gives {given}: they must be the same"
        )
    return sizes[0]


def _time_cond_dim(unet: _Reader, ports: Ports) -> int | None:
    port = ports.inputs.get("timestep_cond")
    configured = unet.get("time_cond_proj_dim")
    if port is None:
        if configured is not None:
            unet.fail("'time_cond_proj_dim' is set but the graph has no input 'timestep_cond'")
        return None
    in_graph = port.shape[1]
    if configured is None and isinstance(in_graph, int):
        return in_graph
    value = unet.integer("time_cond_proj_dim")
    _same_size(unet, "time_cond_proj_dim", value, in_graph)
    return value


def _max_tokens(
    text: _Reader, tokenizer_config: Mapping[str, Any], ports: Ports, problems: Problems
) -> int:
    positions = text.integer("max_position_embeddings", _MAX_POSITIONS)
    length = tokenizer_config.get("model_max_length")
    # Tokenizers without a limit of their own are saved with 1e30.
    limits = [positions]
    if isinstance(length, (int, float)) and not isinstance(length, bool):
        if length < 3:
            problems.add(
                ModelFormatError(
                    f"tokenizer/tokenizer_config.json: 'model_max_length' is {shown(length)}, at "
                    "least 3 is needed.",
                    component="tokenizer",
                    path="tokenizer/tokenizer_config.json",
                )
            )
        limits.append(int(min(length, _MAX_SIZE)))
    fixed = ports.inputs["input_ids"].shape[1]
    if isinstance(fixed, int):
        if min(limits) < fixed:
            text.fail(f"prompts have at most {min(limits)} tokens but the graph takes {fixed}")
        return fixed
    return min(limits)
