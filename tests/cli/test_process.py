"""The command line as a process: pictures, signals, exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from textopia_fast.cli import exits, main


def test_a_picture_of_the_tiny_model(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def picture(name: str, *more: str) -> bytes:
        target = str(tmp_path / name)
        arguments = ["generate", "a red circle", "-m", str(tiny_model), "-o", target]
        assert main([*arguments, "--steps", "3", "--seed", "7", *more]) == 0
        assert capsys.readouterr().out == f"{target}\n"
        with Image.open(target) as image:
            assert image.size == (64, 64)
            return image.tobytes()

    first = picture("a.png")
    assert picture("b.png") == first
    assert picture("c.png", "--guidance", "3") != first


def test_a_wrong_request_to_the_real_pipeline(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "a.png"
    arguments = ["generate", "cat", "-m", str(tiny_model), "-o", str(target), "--size", "63x64"]
    assert main(arguments) == exits.USAGE
    assert capsys.readouterr().err.startswith("error[invalid_request]: width: ")
    assert not target.exists()


_DRIVER = """
import sys
from textopia_fast.cli import generate, main
really_open = generate.open_pipeline
def open_and_say(*arguments):
    pipeline = really_open(*arguments)
    print("ready", flush=True)
    return pipeline
generate.open_pipeline = open_and_say
sys.exit(main(sys.argv[1:]))
"""


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process of this interpreter; it is gone afterwards, whatever happens."""
    path = os.pathsep.join(entry or "." for entry in sys.path)
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_ctrl_c(tiny_model: Path, tmp_path: Path) -> None:
    arguments = ["generate", "cat", "-m", str(tiny_model), "-o", str(tmp_path / "a.png")]
    with started("-c", _DRIVER, *arguments, "--steps", "1000", "--size", "1024x1024") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == exits.INTERRUPTED
    assert err == "error[interrupted]: stopped by the keyboard.\n"
    assert not list(tmp_path.iterdir())


def test_a_reader_that_goes_away() -> None:
    with started("-m", "textopia_fast", "samplers") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 0


def test_the_code_of_the_process() -> None:
    with started("-m", "textopia_fast", "inspect", "/nowhere") as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == exits.MODEL
    assert err.startswith("error[model_not_found]: ")


def test_help_is_light() -> None:
    code = "import sys; from textopia_fast.cli import main; main(['--help']); print(*sys.modules)"
    with started("-c", code) as process:
        out, _ = process.communicate(timeout=60)
    loaded = set(out.splitlines()[-1].split())
    assert not loaded & {"onnx", "tokenizers", "onnxruntime", "PIL", "torch"}
