"""What the commands `samplers`, `inspect` and `doctor` print."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from ..doctor import Finding
from ..models import ModelDirectory, Part, open_directory
from ..precision import describe_precision
from ..providers import describe_provider
from ..samplers import SAMPLERS, STEP_BY_STEP
from ..text import Tokenizer


def print_samplers() -> None:
    """One line per sampler: name, what it is, paper."""
    rows = [(info.name, info.summary, info.paper) for info in SAMPLERS.values()]
    rows += [(i.name, f"step by step: {i.summary}", i.paper) for i in STEP_BY_STEP.values()]
    _print_table(rows)


def print_findings(findings: Iterable[Finding]) -> None:
    """One line per finding, then what to do about the problems."""
    findings = list(findings)
    _print_table([(("!! " if f.problem else "") + f.name, f.value) for f in findings])
    for finding in findings:
        if finding.hint:
            print(f"-> {finding.hint}")


def print_model(name_or_path: str) -> None:
    """What is in a model: graphs, inputs and outputs, sizes. Raises what open_directory raises."""
    directory = open_directory(name_or_path)
    facts = directory.facts
    tokenizer = Tokenizer.from_directory(directory.tokenizer, max_length=facts.max_tokens)
    print(f"{directory.name}: {directory.class_name} in {directory.path}")
    for part in directory.parts.values():
        _print_part(part)
    print("\ntext and latents")
    _print_table(
        [
            ("tokenizer", f"{tokenizer.max_id + 1:,} ids, {tokenizer.max_length} tokens a prompt"),
            ("scheduler", _scheduler(directory)),
            ("default size", f"{facts.default_width}x{facts.default_height} pixels"),
            (
                "latents",
                f"{facts.latent_channels} channels, {facts.vae_scale_factor} pixels a side, "
                f"scaling factor {facts.scaling_factor:g}",
            ),
            ("not run", ", ".join(directory.unused) or "nothing"),
        ],
        indent="  ",
    )
    print(f"\nProvider: {describe_provider()}.")
    print(f"Precision: {describe_precision()}.")


def _print_part(part: Part) -> None:
    facts = part.facts
    print(f"\n{part.name}")
    size = _bytes(facts.file_bytes)
    if facts.external:
        size += f" + {_bytes(facts.external_bytes)} of external data"
    rows = [
        ("file", f"{part.graph} ({size})"),
        ("parameters", f"{facts.parameters:,}"),
        ("nodes", f"{facts.nodes:,}, opset {facts.opset}, by {facts.producer or 'unknown'}"),
    ]
    rows += [("input" if i == 0 else "", str(s)) for i, s in enumerate(part.signature.inputs)]
    rows += [("output" if i == 0 else "", str(s)) for i, s in enumerate(part.signature.outputs)]
    if part.ports.timestep_form:
        rows.append(("timestep", part.ports.timestep_form))
    _print_table(rows, indent="  ")


def _scheduler(directory: ModelDirectory) -> str:
    config = directory.scheduler_config
    keys = ("prediction_type", "beta_schedule", "timestep_spacing", "num_train_timesteps")
    shown = ", ".join(f"{key} {json.dumps(config[key])}" for key in keys if key in config)
    return f"{config.get('_class_name', 'unnamed')} ({shown})"


def _bytes(size: int) -> str:
    value, units = float(size), ["B", "kB", "MB", "GB"]
    while value >= 1000 and len(units) > 1:
        value /= 1000
        units.pop(0)
    return f"{value:.3g} {units[0]}"


def _print_table(rows: Sequence[Sequence[str]], indent: str = "") -> None:
    """Columns of equal width; the last one runs free, so that lines can be cut and searched."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print((indent + "  ".join([*cells, row[-1]])).rstrip())
