"""What a task reports, and how it is shown: a table, JSON, and the summary of all results."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass
class Report:
    """columns: heading of each column. rows: texts, same length. data: the numbers behind them."""

    task: str
    title: str
    columns: list[str]
    command: str = ""
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)

    def add(self, *cells: Any) -> None:
        row = [str(cell) for cell in cells]
        assert len(row) == len(self.columns), (self.columns, row)
        self.rows.append(row)


def number(value: float) -> str:
    """Three significant digits, without exponent."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    if abs(value) >= 10:
        return f"{value:.1f}"
    if abs(value) >= 1:
        return f"{value:.2f}"
    return f"{value:.3f}"


def show(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=report.title)
    for i, column in enumerate(report.columns):
        table.add_column(column, justify="left" if i == 0 else "right")
    for row in report.rows:
        table.add_row(*row)
    console = Console(width=140)  # a table that wraps cannot be read
    console.print(table)
    for note in report.notes:
        console.print(f"* {note}", style="dim", highlight=False)


def write(report: Report, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(report), indent=1) + "\n")


def write_summary(folder: Path = RESULTS) -> Path:
    """README.md of the results, made from the JSON files that lie there."""
    lines = [
        "# Results",
        "",
        "Made by `benchmarks/run.py` from the JSON files of this folder: do not edit. Times are",
        "medians of alternating runs, in one process where no note says else (10th to 90th",
        "percentile in brackets).",
    ]
    for path in sorted(folder.glob("*.json")):
        report = json.loads(path.read_text())
        stamp = report["machine"]
        packages = ", ".join(
            f"{name} {version}"
            for name, version in stamp["packages"].items()
            if version != "not installed"
        )
        lines += [
            "",
            f"## {report['title']}",
            "",
            f"{stamp['cpu']}, {stamp['usable_cores']} of {stamp['cores']} cores, {stamp['isa']}, "
            f"load {stamp['load_average']} at the start; {stamp['date']}; "
            f"Python {stamp['python']}, {packages}.",
            f"Command: `{report['command']}`. Numbers: [{path.name}]({path.name}).",
            "",
            "| " + " | ".join(report["columns"]) + " |",
            "|" + "|".join("---" if i == 0 else "--:" for i in range(len(report["columns"]))) + "|",
            *("| " + " | ".join(row) + " |" for row in report["rows"]),
        ]
        if report["notes"]:
            lines += ["", *(f"- {note}" for note in report["notes"])]
    target = folder / "README.md"
    target.write_text("\n".join(lines) + "\n")
    return target
