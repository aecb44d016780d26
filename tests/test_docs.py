"""docs/samplers.md is made from the registry: it must be what the registry says now."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import textopia_fast as tx

PAGE = Path(__file__).parent.parent / "docs" / "samplers.md"
EVERY = tx.samplers.SAMPLERS | tx.samplers.STEP_BY_STEP


@pytest.mark.parametrize("name", EVERY)
def test_every_sampler_has_its_row(name: str) -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| `{name}` |")]
    assert len(rows) == 1, "run docs/make_samplers.py"
    info = EVERY[name]
    for text in (info.update, info.summary, info.paper):
        assert text in rows[0], "run docs/make_samplers.py"


def test_no_row_is_left_over() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)) == set(EVERY)


def test_the_sampler_of_the_page_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    out = names["out"]
    assert isinstance(out, tx.Output)
    assert out.images[0].size == (64, 64)
    assert out.parameters["sampler"] == "my_heun"
