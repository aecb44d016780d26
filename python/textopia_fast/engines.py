"""Which graphs a pipeline opens: those of its directory, or an engine compiled from them."""

from __future__ import annotations

import functools
import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from . import _core
from ._ort import create_session
from .checks import check_choice, shown
from .denoiser import Denoiser, Hoisted
from .errors import OutputError, TextopiaWarning, UnsupportedModelError
from .graph import EngineDirectory, compile_directory
from .graph.plans import read_plans
from .graph.targets import find_target
from .models import ModelDirectory, inpainting
from .precision import Choice
from .recent import Recent
from .schedulers.config import prediction_of

__all__ = ["KEPT_SIZES", "VERIFY", "DenoiserMaker", "GraphSource", "RunShapes", "find_engine"]

VERIFY = ("size", "full")
KEPT_SIZES = 2
"""Sizes of which a pipeline on a GPU keeps sessions; each has the weights in the GPU's memory."""

RunShapes = tuple[tuple[str, tuple[int, ...]], ...]
"""What one run of a network reads: inputs by name, with their shapes."""
DenoiserMaker = Callable[[int | None], Callable[[RunShapes | None], Denoiser]]
"""Makes denoisers for a number of images per run. On a GPU they are for runs of these shapes alone:
nothing computes sizes then, and runs can be captured as CUDA graphs. None leaves sizes free."""
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

    def open(
        self, part: str, graph: str = "model", shapes: RunShapes | None = None
    ) -> _core.Session:
        """A network: "text_encoder", "vae_decoder" ... Raises what `create_session` raises.

        Weights of an engine stay in its mapped files, which processes share.

        Args:
            part, graph: Of the model, and of those that the compiler has made of it.
            shapes: Of the export's inputs. On a GPU the session is for these alone.
        """
        path = self._path(part, graph)
        opened, config = self._at(part, path, shapes)
        return self._session(part, path, opened, config)

    def sessions(self, part: str) -> Callable[[tuple[int, ...]], _core.Session]:
        """Finds the session of a network for the shape of its one input, opened when needed: one
        for all on the CPU, on a GPU one for each of the last sizes."""
        name = self._directory.parts[part].signature.inputs[0].name

        def open_for(shape: tuple[int, ...] | None) -> _core.Session:
            return self.open(part, shapes=None if shape is None else ((name, shape),))

        recent = Recent(open_for, KEPT_SIZES)
        return recent if self._gpu is not None else lambda shape: recent(None)

    def open_denoiser(self) -> DenoiserMaker:
        """The U-Net, as a maker of denoisers, which keeps those of the last sizes."""
        ports, facts = self._directory.parts["unet"].ports, self._directory.facts
        sample, noise_level = ports.inputs["sample"].name, ports.inputs["timestep"].name
        part, time, has_int8 = None, None, False
        if self._engine is not None:
            part = self._engine.parts["unet"]
            if "time" in part.graphs:
                time = self.open("unet", "time")
                noise_level = time.outputs[0].name
            has_int8 = "body_int8" in part.graphs

        def open_for_prompt(row: RunShapes | None) -> _core.Session:
            return self.open("unet", "prompt", row)

        open_prompt = Recent(open_for_prompt, KEPT_SIZES)

        def open_network(shapes: RunShapes | None) -> Callable[[int | None], Denoiser]:
            hoisted = Hoisted()
            if part is not None:
                # It runs for each prompt alone.
                row = shapes and tuple((name, (1, *shape[1:])) for name, shape in shapes)
                prompt = open_prompt(row) if "prompt" in part.graphs else None
                ends = self._open_body("body", sample, shapes) if has_int8 else None
                hoisted = Hoisted(time, prompt, ends, shares_prefix=part.split["prefix"] > 0)
            network = self._open_body("body_int8" if has_int8 else "body", sample, shapes)

            @functools.cache
            def denoiser(images: int | None) -> Denoiser:
                return Denoiser(
                    network,
                    prediction=prediction_of(self._directory.scheduler_config),
                    inputs={
                        "sample": inpainting.LATENTS if facts.takes_mask else sample,
                        "noise_level": noise_level,
                        "output": ports.outputs["out_sample"].name,
                    },
                    images_per_run=images,
                    hoisted=hoisted,
                    device="cpu" if self._gpu is None else self._gpu,
                )

            return denoiser

        recent = Recent(open_network, KEPT_SIZES)

        def make(images: int | None) -> Callable[[RunShapes | None], Denoiser]:
            def find(shapes: RunShapes | None) -> Denoiser:
                if self._gpu is None or shapes is None:
                    return recent(None)(images)
                # Others follow from these: an inpainting model's mask is a part of its sample.
                names = [spec.name for spec in self._directory.parts["unet"].signature.inputs]
                return recent(tuple(item for item in shapes if item[0] in names))(images)

            return find

        return make

    def _at(
        self, part: str, path: Path, shapes: RunShapes | None
    ) -> tuple[Path | bytes, dict[str, str]]:
        """A graph at these shapes, where that is asked for and can be had, and what the session has
        to know of it."""
        if shapes is None or self._gpu is None:
            return path, {}
        from .graph.fixed import with_sizes

        try:
            graph = with_sizes(path, self._sizes(part, dict(shapes)))
        except Exception as error:  # whatever the library for graphs raises: it costs speed alone
            warnings.warn(
                f"{part}/{path.name}: its sizes cannot be fixed ({shown(str(error), 200)}), so no "
                "CUDA graph will hold it.",
                TextopiaWarning,
                stacklevel=2,
            )
            return path, {}
        return graph, {"session.model_external_initializers_file_folder_path": str(path.parent)}

    def _sizes(self, part: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
        """Numbers for the names of free sizes of an export's inputs."""
        known = self._directory.parts[part]
        if part == "unet":
            ports = known.ports
            rows = shapes[ports.inputs["sample"].name][0]
            # Of a compiled one the features have as many rows as the sample, however it was told.
            is_per_row = self._engine is not None or ports.timestep_form == "batch"
            level = (rows if is_per_row else 1,)
            shapes = {ports.inputs["timestep"].name: level, **shapes}
        sizes: dict[str, int] = {}
        for spec in known.signature.inputs:
            for axis, (size, number) in enumerate(
                zip(spec.shape, shapes.get(spec.name, ()), strict=False)
            ):
                if not isinstance(size, int):
                    sizes.setdefault(size or f"{spec.name}.{axis}", number)
        return sizes

    def _open_body(self, name: str, sample: str, shapes: RunShapes | None) -> _core.Session:
        """The U-Net in the loop; that of an inpainting model takes its sample in three parts."""
        path, facts = self._path("unet", name), self._directory.facts
        graph, config = self._at("unet", path, shapes)
        if facts.takes_mask:
            graph, config = inpainting.part_sample(path, graph, sample, facts.latent_channels)
        return self._session("unet", path, graph, config, is_in_loop=True)

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
        is_in_loop: bool = False,
    ) -> _core.Session:
        return create_session(
            graph,
            threads=self._threads,
            gpu=self._gpu,
            cuda_options=self._cuda_options,
            label=f"{part}/{path.name}",
            config={**config, **(_COMPILED if self._is_packed else {})},
            plugin=self._plugin,
            cuda_graphs=is_in_loop,
            # What runs once a picture gains nothing by it; the decoder's memory is the peak.
            memory_pattern=is_in_loop,
            is_compiled=self._engine is not None,
            plans=self._plans,
        )
