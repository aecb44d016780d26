"""What `import textopia_fast` brings along, and what it leaves for later."""

from __future__ import annotations

import subprocess
import sys

PROBE = """
import os, sys, threading

def native_threads():
    return len(os.listdir("/proc/self/task")) if sys.platform == "linux" else 1

import numpy  # whose BLAS starts threads of its own
before = native_threads()
import textopia_fast
print(threading.active_count(), native_threads() - before, *sys.modules)
"""


def test_import_is_light_and_starts_no_thread() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=True, timeout=120
    )
    python_threads, new_threads, *loaded = done.stdout.split()
    assert python_threads == "1"
    assert new_threads == "0"
    heavy = {"onnx", "onnx_ir", "onnxruntime", "PIL", "rich", "tokenizers", "torch", "typer"}
    assert not heavy & set(loaded)
    assert done.stderr == ""


def test_every_public_name_is_there_and_described() -> None:
    import textopia_fast as tx

    for name in tx.__all__:
        value = getattr(tx, name)
        assert isinstance(value, str) or value.__doc__, name
    assert len(set(tx.__all__)) == len(tx.__all__)
