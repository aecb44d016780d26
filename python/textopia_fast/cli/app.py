"""Commands and options of `textopia-fast`, and its `main`.

A command only reads its options and returns the work to do. `main` does it when the parser is
done: so Ctrl-C and closed pipes come to `main` and not to the parser, which would exit on its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

import typer

from .. import _core
from ..doctor import can_generate, examine
from . import exits
from .compiling import Tuning, clean_cache, compile_model, list_cache, print_coverage
from .generate import Job, parse_size, run
from .listings import print_findings, print_model, print_samplers

Work = Callable[[], int | None]
"""What a command returns; it returns the exit code, None for 0."""

app = typer.Typer(
    name="textopia-fast",
    help="Makes pictures from text with Stable-Diffusion-type ONNX models.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# typer carries its own click in some versions; this is the base of its usage errors in all.
_ClickException: type[typer.BadParameter] = next(
    c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException"
)


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; goes anywhere.")] = False,
) -> None:
    del debug  # `main` takes it out of the arguments, wherever it stands


@app.command()
def generate(
    prompts: Annotated[
        list[str],
        typer.Argument(metavar="PROMPT...", help="Texts, one picture for each; quote them."),
    ],
    output: Annotated[
        str,
        typer.Option(
            "-o", "--output", metavar="FILE", help="PNG to write; may contain {index} and {seed}."
        ),
    ],
    model: Annotated[
        str, typer.Option("-m", "--model", help="Bundled model or directory.")
    ] = "tiny-shapes",
    negative_prompt: Annotated[
        str | None, typer.Option("-n", "--negative-prompt", help="What to keep away from.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Denoising steps.")] = None,
    guidance: Annotated[
        float | None, typer.Option("--guidance", help="Guidance scale; 1 switches it off.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Picture k has the seed SEED + k.")
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", metavar="WxH", help="Size in pixels, such as 512x768.")
    ] = None,
    width: Annotated[int | None, typer.Option("--width", help="Width in pixels.")] = None,
    height: Annotated[int | None, typer.Option("--height", help="Height in pixels.")] = None,
    image: Annotated[
        str | None,
        typer.Option("--image", metavar="FILE", help="Picture to start from: PNG, JPEG or WebP."),
    ] = None,
    mask: Annotated[
        str | None,
        typer.Option("--mask", metavar="FILE", help="White where --image is to be painted anew."),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option("--strength", help="How much of --image may change, above 0 up to 1."),
    ] = None,
    sampler: Annotated[
        str | None, typer.Option("--sampler", help="See `textopia-fast samplers`.")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option("--schedule", help="Noise schedule, such as karras.")
    ] = None,
    count: Annotated[int | None, typer.Option("--count", help="Pictures per prompt.")] = None,
    eta: Annotated[float | None, typer.Option("--eta", help="Noise of DDIM, 0 to 1.")] = None,
    precision: Annotated[
        str, typer.Option("--precision", help="auto, fp32, bf16, int8 or fp16 (see `doctor`).")
    ] = "auto",
    provider: Annotated[
        str, typer.Option("--provider", help="auto, cpu or openvino (see `doctor`).")
    ] = "auto",
    cache_dir: Annotated[
        str | None,
        typer.Option("--cache-dir", metavar="DIR", help="Where compiled graphs are kept."),
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", help="Threads per graph.")] = None,
    device: Annotated[
        str, typer.Option("--device", help="auto, cpu, or cuda:N (experimental).")
    ] = "auto",
    metadata: Annotated[
        bool, typer.Option("--metadata", help="Write prompt and parameters into the PNG.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("-f", "--overwrite", help="Replace files that are there.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="No progress bar, no summary.")
    ] = False,
) -> Work:
    """Make pictures from text; prints the paths of the files written."""
    return partial(
        run,
        Job(
            prompts=tuple(prompts),
            output=output,
            model=model,
            threads=threads,
            precision=precision,
            provider=provider,
            cache_dir=cache_dir,
            device=device,
            options={
                "negative_prompt": negative_prompt,
                "num_inference_steps": steps,
                "guidance_scale": guidance,
                "seed": seed,
                "image": image,
                "mask_image": mask,
                "strength": strength,
                "sampler": sampler,
                "schedule": schedule,
                "num_images_per_prompt": count,
                "eta": eta,
                **parse_size(size, width, height),
            },
            metadata=metadata,
            overwrite=overwrite,
            quiet=quiet,
        ),
    )


@app.command()
def samplers() -> Work:
    """List the samplers: name, what it is, paper."""
    return print_samplers


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="Bundled model or directory.")],
    coverage: Annotated[
        bool, typer.Option("--coverage", help="Also what the graph compiler fuses; takes seconds.")
    ] = False,
    target: Annotated[
        str | None, typer.Option("--target", help="With --coverage: for it, as in `compile`.")
    ] = None,
) -> Work:
    """Show what is in a model: graphs, inputs and outputs, sizes, scheduler, tokenizer."""

    def work() -> None:
        print_model(model)
        if coverage:
            print_coverage(model, target)

    return work


@app.command("compile")
def compile_(
    model: Annotated[str, typer.Argument(help="Bundled model or directory.")],
    target: Annotated[
        str | None,
        typer.Option("--target", help="cpu-bf16, cpu-int8, cpu-fp32, cuda-fp16 or cuda-bf16."),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option("--device", help="Instead of a target: cpu (cpu-bf16) or cuda (cuda-fp16)."),
    ] = None,
    cache_dir: Annotated[
        str | None, typer.Option("--cache-dir", metavar="DIR", help="Where engines are kept.")
    ] = None,
    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="No progress bar, only the path.")
    ] = False,
    tune: Annotated[
        bool,
        typer.Option("--tune", help="Measure how work is best cut on this machine; up to 90 s."),
    ] = False,
    size: Annotated[
        str | None, typer.Option("--size", metavar="WxH", help="Size in pixels to tune for.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", help="Threads to tune for.", min=1, max=1024)
    ] = None,
) -> Work:
    """Compile a model's graphs into an engine and print where it is."""
    if not tune and (size is not None or threads is not None):
        raise typer.BadParameter("--size and --threads go with --tune.")
    found = parse_size(size, None, None)
    pixels = None if size is None else (found["width"] or 0, found["height"] or 0)
    tuning = Tuning(pixels, threads) if tune else None
    return partial(compile_model, model, target, device, cache_dir, quiet, tuning)


@app.command()
def cache(
    cache_dir: Annotated[
        str | None, typer.Option("--cache-dir", metavar="DIR", help="Where engines are kept.")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Remove damaged engines and those above --keep.")
    ] = False,
    keep: Annotated[
        float, typer.Option("--keep", metavar="GB", help="Gigabytes that --prune leaves.", min=0.0)
    ] = 0.0,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the checksums of all files.")
    ] = False,
) -> Work:
    """List the compiled engines, or remove some."""
    if prune:
        return partial(clean_cache, cache_dir, keep)
    return partial(list_cache, cache_dir, verify)


@app.command()
def doctor() -> Work:
    """Check the installation and the machine."""

    def work() -> int:
        findings = examine()
        print_findings(findings)
        return exits.OK if can_generate(findings) else exits.MODEL

    return work


@app.command()
def version() -> Work:
    """Print the version."""
    return partial(print, _core.__version__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit code.

    Args:
        arguments: What stands after the program's name; None: those of this process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    end = given.index("--") if "--" in given else len(given)
    debug = "--debug" in given[:end]
    given = [argument for i, argument in enumerate(given) if argument != "--debug" or i > end]
    try:
        with exits.SpokenWarnings():
            parsed = app(args=given, prog_name="textopia-fast", standalone_mode=False)
            code = parsed() if callable(parsed) else parsed
        sys.stdout.flush()
    except _ClickException as error:
        exits.say(f"error[usage]: {error.format_message()} See `textopia-fast --help`.")
        return exits.USAGE
    except typer.Abort:  # Ctrl-C while the arguments were read
        return exits.report(KeyboardInterrupt(), debug)
    except BrokenPipeError:
        # The reader went away, as `head` does: that is its right.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.OK
    except (Exception, KeyboardInterrupt) as error:
        return exits.report(error, debug)
    return code if isinstance(code, int) else exits.OK
