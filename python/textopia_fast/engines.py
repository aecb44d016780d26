"""Which graphs a pipeline opens: those of its directory, or an engine compiled from them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import _core
from ._ort import create_session
from .checks import check_choice
from .denoiser import Denoiser, Hoisted
from .errors import OutputError, TextopiaWarning, UnsupportedModelError
from .graph import EngineDirectory, compile_directory
from .graph.plans import read_plans
from .graph.targets import find_target
from .models import ModelDirectory, inpainting
from .precision import Choice
from .schedulers.config import prediction_of

__all__ = ["VERIFY", "GraphSource", "find_engine"]

VERIFY = ("size", "full")
# For the CPU weights are packed when they are compiled; ONNX Runtime's packing would copy others.
_COMPILED = {"session.disable_prepacking": "1"}


def find_engine(
    directory: ModelDirectory,
    choice: Choice,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    verify: str = "size",
    progress: Callable[[str, int, int], Any] | None = None,
    plugin: _core.Plugin | None = None,
) -> EngineDirectory | None:
    """The engine of a directory for the chosen precision; None where graphs run as exported, as
    they do on a plugin.

    A precision that nobody asked for is given up, with a TextopiaWarning, where there can be no
    engine.

    Raises:
        OutputError: The cache cannot be written: read-only, full.
        UnsupportedModelError: The graphs cannot be compiled.
        ConfigurationError: `verify` is no such check.
    """
    check_choice("verify", verify, VERIFY)
    if choice.target is None or plugin is not None:
        return None
    try:
        return compile_directory(directory, choice.target, cache_dir, progress, verify=verify)
    except (OutputError, UnsupportedModelError) as error:
        if not choice.is_automatic:
            raise
        warnings.warn(
            f"precision: fp32 instead of {choice.precision}. {error.message}",
            TextopiaWarning,
            stacklevel=3,
        )
        return None


class GraphSource:
    """Opens the graphs of a directory: of its engine where there is one, else as exported."""

    def __init__(
        self,
        directory: ModelDirectory,
        engine: EngineDirectory | None,
        threads: int | None,
        gpu: _core.Gpu | None = None,
        plugin: _core.Plugin | None = None,
    ) -> None:
        self._directory = directory
        self._engine = engine
        self._threads = threads
        self._plugin = plugin
        self._gpu = gpu
        self._is_packed = engine is not None and gpu is None
        target = None if engine is None else find_target(engine.target)
        self._cuda_options = dict(target.cuda_options) if target else {}
        # Of an int8 engine those of the engine that it stands beside: a step costs the same.
        folder = None if engine is None else engine.parts["unet"].graphs["body"].parent.parent
        self._plans = read_plans(folder, threads) if folder and gpu is None else None

    def open(self, part: str, graph: str = "model") -> _core.Session:
        """A network: "text_encoder", "vae_decoder" ... Raises what `create_session` raises.

        Weights of an engine stay in its mapped files, which processes share.
        """
        path = self._path(part, graph)
        return self._session(part, path, path, {})

    def open_denoiser(self) -> Callable[[int | None], Denoiser]:
        """The U-Net, as a maker of denoisers for a number of images per run."""
        ports, facts = self._directory.parts["unet"].ports, self._directory.facts
        sample, noise_level = ports.inputs["sample"].name, ports.inputs["timestep"].name
        hoisted = Hoisted()
        if self._engine is not None:
            part = self._engine.parts["unet"]
            time, prompt = (
                self.open("unet", name) if name in part.graphs else None
                for name in ("time", "prompt")
            )
            has_int8 = "body_int8" in part.graphs
            ends = self._open_body("body", sample) if has_int8 else None
            hoisted = Hoisted(time, prompt, ends, shares_prefix=part.split["prefix"] > 0)
            noise_level = noise_level if time is None else time.outputs[0].name
        network = self._open_body("body" if hoisted.ends is None else "body_int8", sample)
        if facts.takes_mask:
            sample = inpainting.LATENTS

        def denoiser(images: int | None) -> Denoiser:
            return Denoiser(
                network,
                prediction=prediction_of(self._directory.scheduler_config),
                inputs={
                    "sample": sample,
                    "noise_level": noise_level,
                    "output": ports.outputs["out_sample"].name,
                },
                images_per_run=images,
                hoisted=hoisted,
                device="cpu" if self._gpu is None else self._gpu,
            )

        return denoiser

    def _open_body(self, name: str, sample: str) -> _core.Session:
        """The U-Net in the loop; that of an inpainting model takes its sample in three parts."""
        path, facts = self._path("unet", name), self._directory.facts
        if not facts.takes_mask:
            return self._session("unet", path, path, {}, cuda_graphs=True)
        graph, folder = inpainting.part_sample(path, sample, facts.latent_channels)
        return self._session("unet", path, graph, folder, cuda_graphs=True)

    def _path(self, part: str, graph: str) -> Path:
        if self._engine is None:
            return self._directory.parts[part].graph
        return self._engine.parts[part].graphs[graph]

    def _session(
        self,
        part: str,
        path: Path,
        graph: Path | bytes,
        config: dict[str, str],
        *,
        cuda_graphs: bool = False,
    ) -> _core.Session:
        return create_session(
            graph,
            threads=self._threads,
            gpu=self._gpu,
            cuda_options=self._cuda_options,
            label=f"{part}/{path.name}",
            config={**config, **(_COMPILED if self._is_packed else {})},
            plugin=self._plugin,
            cuda_graphs=cuda_graphs,
            is_compiled=self._engine is not None,
            plans=self._plans,
        )
