"""Compiling without a GPU: the same bytes as recorded, from any folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

ROOT = Path(__file__).parents[2]
TRITON = "3.9.0"


def build(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("TRITON_INTERPRET", None)
    return subprocess.run(
        [sys.executable, "-m", "kernels.build", "--jobs", "1", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture(autouse=True)
def _the_recorded_compiler():
    try:
        found = version("triton")
    except PackageNotFoundError:
        found = "unknown"
    if found != TRITON:
        pytest.skip(f"needs triton {TRITON}, whose cubins were recorded; found {found}")


def test_the_same_bytes_from_another_folder(tmp_path):
    """Two kernels for the oldest and the newest architecture, away from the checkout."""
    shutil.copytree(ROOT / "kernels", tmp_path / "kernels")
    out = tmp_path / "out"
    arguments = ("--only", "clamp", "--arch", "80", "--arch", "120")
    done = build(tmp_path, "--out", str(out), *arguments)
    assert done.returncode == 0, done.stderr
    assert "2 cubins, 0 unlike hashes.json" in done.stdout
    with zipfile.ZipFile(out / "sm_120.zip") as archive:
        entry = json.loads(archive.read("manifest.json"))["kernels"][0]
        assert archive.read("clamp.fp32.any.cubin")[:4] == b"\x7fELF"
    assert entry["parameters"] == ["*fp32", "*fp32", "fp32", "fp32", "i32"]
    first = (out / "sm_120.zip").read_bytes()
    shutil.rmtree(out)
    assert build(tmp_path, "--out", str(out), *arguments).returncode == 0
    assert (out / "sm_120.zip").read_bytes() == first


def test_a_changed_kernel_is_told(tmp_path):
    shutil.copytree(ROOT / "kernels", tmp_path / "kernels")
    source = tmp_path / "kernels" / "clamp.py"
    source.write_text(source.read_text().replace("value < low, low", "value < low, low + 1.0"))
    done = build(tmp_path, "--check", "--only", "clamp", "--arch", "90")
    assert done.returncode == 1
    assert "clamp.fp32.any.sm_90" in done.stdout


def test_every_compiled_variant_has_a_hash_for_every_architecture():
    from kernels import manifest

    recorded = json.loads((ROOT / "kernels" / "hashes.json").read_text())
    assert set(recorded) == {
        f"{variant.name}.sm_{architecture}"
        for variant in manifest.compiled()
        for architecture in manifest.ARCHITECTURES
    }
