"""What the package must never do: run data as code, use the network, print, rely on assert."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import textopia_fast

PACKAGE = Path(textopia_fast.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

# Modules that turn data into code, or open connections.
FORBIDDEN_MODULES = {
    "pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "yaml",
    "requests", "httpx", "aiohttp", "urllib3", "http", "ftplib", "socket", "huggingface_hub",
}  # fmt: skip
# Heavy neighbours, which only the bridges to them may import.
NEIGHBOURS = {"torch", "transformers", "diffusers", "k_diffusion"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.level == 0:
        return [node.module or ""]
    return []


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_source(path: Path) -> None:
    in_cli = path.parent.name == "cli"
    forbidden = FORBIDDEN_MODULES | (NEIGHBOURS if path.parent.name != "interop" else set())
    for node in nodes(path):
        for name in imported(node):
            assert name.split(".")[0] not in forbidden, f"line {node.lineno}: {name}"
            assert name != "urllib.request", f"line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in FORBIDDEN_CALLS, f"line {node.lineno}: {node.func.id}"
            # Only the program prints; the library tells by errors and warnings.
            assert in_cli or node.func.id != "print", f"line {node.lineno}: print"
        # `python -O` removes them.
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: assert"
