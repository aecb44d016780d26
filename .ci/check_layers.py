"""Checks the ladder of CONTRIBUTING.md: an include or import may only point down, and only one
folder of the core may know Python."""

import ast
import re
import subprocess
import sys
from pathlib import Path

# Lower rungs first. A file may include its own folder and any rung below it.
RUNGS = [{"base"}, {"ort", "rng", "cpu", "cuda"}, {"ops"}, {"engine"}, {"binding"}]
LEVEL = {folder: level for level, rung in enumerate(RUNGS) for folder in rung}
# The same for the modules and folders of the package.
PACKAGE = Path("python/textopia_fast")
PYTHON_RUNGS = [
    {"errors", "_core"},
    {"checks", "recent"},
    {"cuda_options"},
    {"_ort", "arrays", "devices", "precision"},
    {"noise_streams", "providers"},
    {"noise", "schedules", "models"},
    {"tracing"},
    {"schedulers"},
    {"samplers"},
    {"graph"},
    {"text", "denoiser"},
    {"stepping", "engines"},
    {"sampling", "request", "guidance", "output", "callbacks"},
    {"images", "input_images", "cropping"},
    {"batching", "variation"},
    {"stages"},
    {"editing"},
    {"parts", "start"},
    {"generation"},
    {"pipeline", "doctor"},
    {"interop"},
    {"cli"},
    {"__init__", "__main__"},
]
PYTHON_LEVEL = {name: level for level, rung in enumerate(PYTHON_RUNGS) for name in rung}


def problems_in(path: Path) -> list[str]:
    folder = path.parts[1]
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        quoted = re.match(r'#include "(\w+)/', line)
        if quoted and quoted[1] != folder and LEVEL[quoted[1]] >= LEVEL[folder]:
            found.append(f"{path}:{number}: {folder} may not include {quoted[1]}")
        if re.match(r"#include <(pybind11|Python|numpy)", line) and folder != "binding":
            found.append(f"{path}:{number}: only csrc/binding may know Python")
        if re.search(r"\b(printf|std::cout|std::cerr|abort\(\)|std::exit)\b", line):
            found.append(f"{path}:{number}: the core never prints, aborts or exits")
    return found


def problems_in_python(path: Path) -> list[str]:
    """Imports of a module that do not point down. Inside of a folder they may point anywhere."""
    own = path.relative_to(PACKAGE).with_suffix("").parts
    if own[0] not in PYTHON_LEVEL:
        return [f"{path}: stands on no rung of PYTHON_RUNGS"]
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        named = []
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            named = [node.module or ""]
        if any(name.split(".")[0] == PACKAGE.name for name in named):
            found.append(f"{path}:{node.lineno}: imports inside of the package are relative")
        if isinstance(node, ast.ImportFrom) and node.level == len(own):
            names = [node.module.split(".")[0]] if node.module else [a.name for a in node.names]
            found += [
                f"{path}:{node.lineno}: {own[0]} may not import {name}"
                for name in names
                if name != own[0] and PYTHON_LEVEL.get(name, 0) >= PYTHON_LEVEL[own[0]]
            ]
    return found


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", *patterns], capture_output=True, text=True, check=True
    )
    return [Path(name) for name in listed.stdout.split()]


def main() -> int:
    core, package = tracked("csrc/*.cc", "csrc/*.h"), tracked(f"{PACKAGE}/*.py")
    problems = [problem for path in core for problem in problems_in(path)]
    problems += [problem for path in package for problem in problems_in_python(path)]
    print("\n".join(problems) or f"{len(core) + len(package)} files keep to the ladder")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
