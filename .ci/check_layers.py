"""Checks the ladder of CONTRIBUTING.md: an include may only point down, and only one folder may
know Python."""

import re
import subprocess
import sys
from pathlib import Path

# Lower rungs first. A file may include its own folder and any rung below it.
RUNGS = [{"base"}, {"ort", "rng", "cpu"}, {"ops"}, {"engine"}, {"binding"}]
LEVEL = {folder: level for level, rung in enumerate(RUNGS) for folder in rung}


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


def main() -> int:
    files = subprocess.run(
        ["git", "ls-files", "csrc/*.cc", "csrc/*.h"], capture_output=True, text=True, check=True
    ).stdout.split()
    problems = [problem for name in files for problem in problems_in(Path(name))]
    print("\n".join(problems) or f"{len(files)} files keep to the ladder")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
