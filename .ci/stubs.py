"""Generates python/textopia_fast/_core.pyi from the installed module, or compares it with
--check."""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

TARGET = Path(__file__).resolve().parents[1] / "python" / "textopia_fast" / "_core.pyi"


def generate() -> str:
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "pybind11_stubgen", "textopia_fast._core", "-o", folder],
            check=True,
            cwd=folder,
            stdout=subprocess.DEVNULL,
        )
        stub = Path(folder, "textopia_fast", "_core.pyi")
        command = ["ruff", "format", "--line-length", "100", str(stub)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        # The generator writes `x: T = None` for pointers that may be None.
        return re.sub(r"(: [\w.]+) = None", r"\1 | None = None", stub.read_text())


def main() -> int:
    text = generate()
    if "--check" not in sys.argv:
        TARGET.write_text(text)
        return 0
    if TARGET.read_text() == text:
        return 0
    print(f"{TARGET.name} is not what the module says; run python .ci/stubs.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
