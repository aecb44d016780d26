"""The graphs around the loop: prompt to embedding, latent to picture; safe from many threads."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _core
from .arrays import Array, is_on_gpu, to_device, to_float32
from .batching import Batching
from .checks import check_number
from .devices import open_device
from .engines import GraphSource
from .errors import (
    DeadlineExceededError,
    GenerationCancelled,
    InvalidRequestError,
    NumericalError,
    UnsupportedModelError,
)
from .graph import EngineDirectory
from .models import ModelDirectory
from .models.facts import DirectoryFacts
from .models.signature import Ports
from .text import Tokenizer

__all__ = [
    "Decoder",
    "Encoder",
    "Graphs",
    "Posterior",
    "StageClock",
    "TextEncoder",
    "repeat_rows",
    "run",
    "to_embeddings",
]

# Prompts whose embeddings are kept: a service repeats its negative prompt in every request.
EMBEDDING_CACHE_SIZE = 64


Sessions = Callable[[tuple[int, ...]], _core.Session]
"""Finds the session of a network for the shape of its input."""


def run(
    session: _core.Session, feeds: dict[str, np.ndarray], cancel: _core.CancelToken | None
) -> dict[str, np.ndarray]:
    """One graph run that `cancel` can end at the next node (GenerationCancelled)."""
    return session.run(feeds, cancel=cancel)


def _dtype_of(session: _core.Session, name: str) -> str:
    return next(info.dtype for info in session.inputs if info.name == name)


class TextEncoder:
    """Tokenizer and text encoder: one prompt at a time, so that its embedding never depends on its
    neighbours."""

    def __init__(
        self, session: _core.Session, tokenizer: Tokenizer, *, input_name: str, output: str
    ):
        self._session = session
        self._tokenizer = tokenizer
        self._input_name = input_name
        self._output = output
        self._dtype = _dtype_of(session, input_name)
        self._cache: OrderedDict[bytes, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def encode(
        self, prompts: tuple[str, ...], cancel: _core.CancelToken | None = None
    ) -> np.ndarray:
        """Embeddings of `prompts`: float32 [B, T, D].

        Over-long prompts are cut with a TextopiaWarning that says what was cut.

        Raises:
            NumericalError: The encoder returned NaN or infinity.
        """
        unique = list(dict.fromkeys(prompts))
        ids = self._tokenizer.encode(unique)
        embeddings = {
            text: self._embed(row[None].astype(self._dtype, copy=False), cancel)
            for text, row in zip(unique, ids, strict=True)
        }
        return np.concatenate([embeddings[text] for text in prompts])

    def _embed(self, ids: np.ndarray, cancel: _core.CancelToken | None) -> np.ndarray:
        key = ids.tobytes()
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        embedding = run(self._session, {self._input_name: ids}, cancel)[self._output]
        embedding = embedding.astype(np.float32, copy=False)
        if not np.isfinite(embedding).all():
            raise NumericalError(
                "text_encoder: NaN or infinity in the embedding of the prompt.",
                stage="text_encoder",
            )
        with self._lock:
            self._cache[key] = embedding
            while len(self._cache) > EMBEDDING_CACHE_SIZE:
                self._cache.popitem(last=False)
        return embedding


class Decoder:
    """VAE decoder, one image at a time: the least memory, and no image depends on another."""

    def __init__(
        self,
        find_session: Sessions,
        *,
        input_name: str,
        output: str,
        scaling_factor: float,
        shift_factor: float = 0.0,
    ):
        self._find_session = find_session
        self._input_name = input_name
        self._output = output
        self._scaling_factor = scaling_factor
        self._shift_factor = shift_factor

    def decode(self, latents: np.ndarray, cancel: _core.CancelToken | None = None) -> np.ndarray:
        """Pictures of `latents` [B, C, H, W]: float32 [B, 3, H*f, W*f], about -1..1."""
        session = self._find_session((1, *latents.shape[1:]))
        dtype = _dtype_of(session, self._input_name)
        pictures = []
        for latent in latents:
            scaled = (latent[None] / self._scaling_factor + self._shift_factor).astype(dtype)
            picture = run(session, {self._input_name: scaled}, cancel)[self._output]
            pictures.append(picture.astype(np.float32, copy=False))
        return np.concatenate(pictures)


@dataclass(frozen=True, eq=False)
class Posterior:
    """What the VAE encoder says of pictures: normal distributions of latents, unscaled.

    Attributes:
        mean: float32 [N, C, h, w].
        std: The same, or None where the graph gives a sample itself.
    """

    mean: np.ndarray
    std: np.ndarray | None


class Encoder:
    """VAE encoder, one picture at a time. Its graph is opened when it is first needed."""

    def __init__(
        self,
        find_session: Sessions,
        ports: Ports,
        facts: DirectoryFacts,
    ):
        self._find_session = find_session
        self._input_name = ports.inputs["sample"].name
        # Mean and log-variance where the graph has them: then the draw is the caller's.
        self._has_variance = "latent_parameters" in ports.outputs
        role = "latent_parameters" if self._has_variance else "latent_sample"
        self._output = ports.outputs[role].name
        self._facts = facts

    @property
    def has_variance(self) -> bool:
        """Whether a picture gives a distribution, and `Posterior.std` is there."""
        return self._has_variance

    def encode(self, pictures: np.ndarray, cancel: _core.CancelToken | None = None) -> Posterior:
        """Distributions of the latents of `pictures`, float32 [N, 3, H, W] in -1..1.

        Raises:
            NumericalError: The encoder returned NaN or infinity.
            UnsupportedModelError: Its output has another shape than the configuration says.
        """
        session = self._find_session((1, *pictures.shape[1:]))
        dtype = _dtype_of(session, self._input_name)
        rows = []
        for picture in pictures:
            feeds = {self._input_name: np.ascontiguousarray(picture[None], dtype)}
            rows.append(self._checked(run(session, feeds, cancel)[self._output], picture.shape))
        found = np.concatenate(rows)
        if not self._has_variance:
            return Posterior(found, None)
        mean, log_variance = np.split(found, 2, axis=1)
        # diffusers bounds the logarithm of the variance in the same way.
        return Posterior(mean, np.exp(np.float32(0.5) * log_variance.clip(-30.0, 20.0)))

    def scale(self, latents: np.ndarray) -> np.ndarray:
        """Latents in the units of the denoiser: those that `Decoder.decode` takes."""
        shifted = latents - np.float32(self._facts.shift_factor)
        return np.ascontiguousarray(shifted * np.float32(self._facts.scaling_factor), np.float32)

    def _checked(self, found: np.ndarray, picture_shape: tuple[int, ...]) -> np.ndarray:
        channels = self._facts.latent_channels * (2 if self._has_variance else 1)
        sizes = tuple(size // self._facts.vae_scale_factor for size in picture_shape[1:])
        if found.shape != (1, channels, *sizes):
            raise UnsupportedModelError(
                f"vae_encoder: its result has the shape {found.shape}, "
                f"{(1, channels, *sizes)} is what its configuration says.",
                component="vae_encoder",
            )
        found = found.astype(np.float32, copy=False)
        if not np.isfinite(found).all():
            raise NumericalError(
                "vae_encoder: NaN or infinity in the latents of the picture.", stage="vae_encoder"
            )
        return found


def to_embeddings(name: str, value: Any, gpu: _core.Gpu | None) -> Array:
    """Embeddings given by the caller: float32 [B, T, D], B > 0; on `gpu` where they lie there.

    Raises:
        InvalidRequestError: `value` is something else.
    """
    on_gpu = is_on_gpu(value)
    embeddings: Array = (
        to_device(value, name, gpu, "float32") if on_gpu else to_float32(value, name)
    )
    if embeddings.ndim != 3 or 0 in embeddings.shape:
        raise InvalidRequestError(
            f"{name}: shape {embeddings.shape}, allowed are [B, T, D].", param=name
        )
    return embeddings


def repeat_rows(array: Array, count: int) -> Array:
    """Every row of the first axis `count` times, where `array` is."""
    if isinstance(array, np.ndarray):
        return np.repeat(array, count, axis=0)
    return array if count == 1 else array.repeat(count)


@dataclass(frozen=True)
class Graphs:
    """The open graphs of one model directory."""

    text_encoder: TextEncoder
    batching: Batching
    embedding_input: str
    decoder: Decoder
    encoder: Encoder | None

    @classmethod
    def open(
        cls,
        directory: ModelDirectory,
        engine: EngineDirectory | None,
        threads: int | None,
        images_per_run: int | str | None,
        device: str = "cpu",
        plugin: _core.Plugin | None = None,
    ) -> Graphs:
        """Makes the sessions, of the engine where there is one. Raises what `open_device` and
        `create_session` raise."""
        gpu = open_device(device)
        source = GraphSource(directory, engine, threads, gpu, plugin)
        unet, text, decoder = (
            directory.parts[name].ports for name in ("unet", "text_encoder", "vae_decoder")
        )
        encoder = directory.parts.get("vae_encoder")
        facts = directory.facts
        tokenizer = Tokenizer.from_directory(directory.tokenizer)
        ids, latents = text.inputs["input_ids"].name, decoder.inputs["latent_sample"].name
        sample = unet.inputs["sample"].name
        embedding = unet.inputs["encoder_hidden_states"].name
        size = (facts.default_height, facts.default_width)
        latent_shape = (facts.latent_channels, *(n // facts.vae_scale_factor for n in size))
        # What is asked for most: one image, with guidance where the network has none built in.
        rows = 2 if facts.time_cond_proj_dim is None else 1
        usual = [
            (sample, (rows, *latent_shape)),
            (embedding, (rows, tokenizer.max_length, facts.cross_attention_dim)),
        ]
        if facts.time_cond_proj_dim is not None:
            usual.append(("timestep_cond", (rows, facts.time_cond_proj_dim)))
        find_decoder = source.sessions("vae_decoder")
        find_decoder((1, *latent_shape))  # now, since there may be something wrong with it
        return cls(
            TextEncoder(
                source.open("text_encoder", shapes=((ids, (1, tokenizer.max_length)),)),
                tokenizer,
                input_name=ids,
                output=text.outputs["last_hidden_state"].name,
            ),
            Batching(source.open_denoiser(), images_per_run, gpu, sample, tuple(usual)),
            embedding,
            Decoder(
                find_decoder,
                input_name=latents,
                output=decoder.outputs["sample"].name,
                scaling_factor=facts.scaling_factor,
                shift_factor=facts.shift_factor,
            ),
            None
            if encoder is None
            else Encoder(source.sessions("vae_encoder"), encoder.ports, facts),
        )

    def embeddings(self, name: str, value: Any) -> Array | None:
        """`to_embeddings` for where the denoiser runs; None stays None."""
        return None if value is None else to_embeddings(name, value, self.batching.gpu)


class StageClock:
    """Times the stages of one call and holds its deadline."""

    def __init__(self, deadline: float | None, cancel: _core.CancelToken | None) -> None:
        self._seconds = None if deadline is None else check_number("deadline", deadline)
        self._cancel = cancel
        self._start = self._last = time.perf_counter()
        self._timings: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """Ends a stage.

        Raises:
            GenerationCancelled, DeadlineExceededError: As asked for.
        """
        now = time.perf_counter()
        self._timings[stage] = (now - self._last) * 1e3
        self._last = now
        if self._cancel is not None and self._cancel.cancelled:
            raise GenerationCancelled(f"{stage}: cancelled.", stage=stage)
        remaining = self.remaining()
        if remaining is not None and remaining <= 0:
            raise DeadlineExceededError(
                f"{stage}: the deadline of {self._seconds} s passed.", stage=stage
            )

    def remaining(self) -> float | None:
        """Seconds until the deadline, or None without one."""
        if self._seconds is None:
            return None
        return self._seconds - (time.perf_counter() - self._start)

    def timings(self) -> dict[str, float]:
        """Milliseconds per stage, and "total"."""
        return {**self._timings, "total": (self._last - self._start) * 1e3}
