"""The command `generate`: prompts to PNG files."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ..checks import shown
from ..engines import find_engine
from ..errors import InvalidRequestError, OutputError
from ..images import parameters_text, save_png
from ..input_images import open_image
from ..models import open_directory
from ..pipeline import Output, Pipeline
from ..precision import choose_precision
from ..providers import choose_provider
from .compiling import compile_bar
from .exits import say

_FIELD = re.compile(r"\{([^{}]*)\}")
_FIELDS = ("index", "seed")
# Options that are paths of pictures here, and pictures for the pipeline.
_FILES = ("image", "mask_image")
_MAX_SIDE = 1 << 16


@dataclass(frozen=True)
class Job:
    """What the command line asked for. Options that are None were not given."""

    prompts: tuple[str, ...]
    output: str
    model: str
    threads: int | None
    precision: str
    provider: str
    cache_dir: str | None
    device: str
    options: Mapping[str, Any]
    metadata: bool
    overwrite: bool
    quiet: bool


def open_pipeline(job: Job) -> Pipeline:
    """The pipeline of a model; a bar shows how far it is compiled, the first time."""
    choice = choose_precision(job.precision, job.device)
    plugin = choose_provider(job.provider, choice.precision, job.threads, job.device)
    directory = open_directory(job.model)
    with compile_bar(job.quiet) as progress:
        engine = find_engine(
            directory, choice, cache_dir=job.cache_dir, progress=progress, plugin=plugin
        )
    return Pipeline(
        directory,
        engine=engine,
        threads=job.threads,
        device="cpu" if job.device == "auto" else job.device,
        plugin=plugin,
    )


def run(job: Job) -> None:
    """Makes the pictures, writes them, prints their paths."""
    options = {name: value for name, value in job.options.items() if value is not None}
    count = options.get("num_images_per_prompt", 1) * len(job.prompts)
    check_template(job.output)
    for name in _FILES:
        if name in options:
            options[name] = open_image(name, options[name])
    # Early, so that minutes of work do not end at a typing error.
    _check_writable(job, count, options.get("seed"))
    pipeline = open_pipeline(job)
    with _progress_bar(job.quiet) as progress:
        if progress is not None:
            options["progress"] = progress
        result = pipeline(list(job.prompts), **options)
    paths = output_paths(job.output, result.seeds)
    for index, (image, path) in enumerate(zip(result.images, paths, strict=True)):
        text = _parameters(job, result, index) if job.metadata else None
        save_png(image, path, parameters=text, overwrite=job.overwrite)
        print(path)
    if not job.quiet:
        say(_summary(result))


def parse_size(size: str | None, width: int | None, height: int | None) -> dict[str, int | None]:
    """`--size WxH` or `--width` and `--height` as the pipeline's parameters."""
    if size is None:
        return {"width": width, "height": height}
    if width is not None or height is not None:
        raise InvalidRequestError("size: give either --size or --width and --height.", param="size")
    match = re.fullmatch(r"([0-9]{1,5})[xX×]([0-9]{1,5})", size.strip())
    if match is None or not all(1 <= int(side) <= _MAX_SIDE for side in match.groups()):
        raise InvalidRequestError(
            f"size: is {shown(size)}, width and height such as 512x768 are expected.", param="size"
        )
    return {"width": int(match[1]), "height": int(match[2])}


def check_template(output: str) -> None:
    """Refuses names with other fields than {index} and {seed}, and other types than PNG."""
    for field in _FIELD.findall(output):
        if field not in _FIELDS:
            raise InvalidRequestError(
                f"output: has the field {shown(field, 40)}, allowed are {{index}} and {{seed}}.",
                param="output",
            )
    extension = os.path.splitext(output)[1]
    if extension.lower() != ".png":
        raise InvalidRequestError(
            f"output: ends in {shown(extension, 40)}, only .png is written.", param="output"
        )


def output_paths(output: str, seeds: Sequence[int | None]) -> list[str]:
    """A path for each picture: fields filled in, or `-0`, `-1` ... before the extension."""
    fields = set(_FIELD.findall(output))
    count = len(seeds)
    if count > 1 and not fields:
        stem, extension = os.path.splitext(output)
        output, fields = f"{stem}-{{index}}{extension}", {"index"}
    paths = [
        output.replace("{index}", str(index)).replace("{seed}", str(seed))
        for index, seed in enumerate(seeds)
    ]
    if len(set(paths)) < count:
        raise InvalidRequestError(
            f"output: {shown(output)} gives the same name to several pictures.",
            hint="Add {index}.",
            param="output",
        )
    return paths


def _check_writable(job: Job, count: int, seed: int | None) -> None:
    directory = os.path.dirname(job.output) or "."
    if not _FIELD.search(directory):
        if not os.path.isdir(directory):
            raise OutputError(
                f"{directory}: there is no such directory.", hint="Make it first.", errno=2
            )
        if not os.access(directory, os.W_OK | os.X_OK):
            raise OutputError(f"{directory}: is not writable.", errno=13)
    if seed is None and "{seed}" in job.output:
        return
    first = seed or 0
    for path in output_paths(job.output, range(first, first + max(1, min(count, 1000)))):
        if os.path.lexists(path) and not job.overwrite:
            raise OutputError(
                f"{path}: is there already.", hint="Use --overwrite or another name.", errno=17
            )


@contextmanager
def _progress_bar(quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr when that is a terminal; it goes when the work is done."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("denoising", total=None)
        yield lambda step, total: bar.update(task, completed=step, total=total)


def _parameters(job: Job, result: Output, index: int) -> str:
    used = result.parameters
    width, height = used.get("width"), used.get("height")
    return parameters_text(
        _of_image(used.get("prompt", job.prompts), index),
        negative_prompt=_of_image(used.get("negative_prompt") or "", index),
        Steps=used.get("num_inference_steps"),
        Sampler=used.get("sampler"),
        Schedule_type=used.get("schedule"),
        CFG_scale=used.get("guidance_scale"),
        Seed=result.seeds[index],
        Denoising_strength=used.get("strength"),
        Size=f"{width}x{height}" if width and height else None,
        # The name only: a path says more about the machine than about the picture.
        Model=os.path.basename(os.path.normpath(job.model)),
    )


def _of_image(texts: str | Sequence[str], index: int) -> str:
    return texts if isinstance(texts, str) else texts[index % len(texts)]


def _summary(result: Output) -> str:
    seeds = ", ".join(map(str, result.seeds[:8])) + (", ..." if len(result.seeds) > 8 else "")
    steps = result.parameters.get("num_inference_steps")
    name = result.parameters.get("sampler")
    return f"seed {seeds}; {steps} steps of {name}; {result.timings.get('total', 0):,.0f} ms"
