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
    """A kernel for the oldest and the newest architecture and as PTX, away from the checkout."""
    shutil.copytree(ROOT / "kernels", tmp_path / "kernels")
    out = tmp_path / "out"
    arguments = ("--only", "clamp", "--arch", "80", "--arch", "120", "--arch", "ptx")
    done = build(tmp_path, "--out", str(out), *arguments)
    assert done.returncode == 0, done.stderr
    assert "3 kernels, 0 unlike hashes.json" in done.stdout
    with zipfile.ZipFile(out / "sm_120.zip") as archive:
        entry = json.loads(archive.read("manifest.json"))["kernels"][0]
        assert archive.read("clamp.fp32.any.cubin")[:4] == b"\x7fELF"
    assert entry["parameters"] == ["*fp32", "*fp32", "fp32", "fp32", "i32"]
    with zipfile.ZipFile(out / "ptx.zip") as archive:
        facts = json.loads(archive.read("manifest.json"))
        text = archive.read("clamp.fp32.any.ptx").decode()
    assert facts["architecture"] == "ptx"
    assert facts["kernels"][0]["parameters"] == entry["parameters"]
    # The PTX of CUDA 12.0, which every driver that is allowed can read, and of no one GPU's.
    assert ".version 8.0" in text
    assert ".target sm_80\n" in text
    assert f".visible .entry {entry['function']}(" in text
    assert text.count(".param .") == len(entry["parameters"]) + 2  # Triton's two scratch pointers
    assert str(tmp_path) not in text
    first = [(out / f"{name}.zip").read_bytes() for name in ("sm_120", "ptx")]
    shutil.rmtree(out)
    assert build(tmp_path, "--out", str(out), *arguments).returncode == 0
    assert [(out / f"{name}.zip").read_bytes() for name in ("sm_120", "ptx")] == first


def test_a_changed_kernel_is_told(tmp_path):
    shutil.copytree(ROOT / "kernels", tmp_path / "kernels")
    source = tmp_path / "kernels" / "clamp.py"
    source.write_text(source.read_text().replace("value < low, low", "value < low, low + 1.0"))
    done = build(tmp_path, "--check", "--only", "clamp", "--arch", "90")
    assert done.returncode == 1
    assert "clamp.fp32.any.sm_90" in done.stdout


def test_every_compiled_variant_has_a_hash_for_every_architecture():
    from kernels import manifest
    from kernels.build import label_of

    recorded = json.loads((ROOT / "kernels" / "hashes.json").read_text())
    assert set(recorded) == {
        f"{variant.name}.{label_of(architecture)}"
        for variant in manifest.compiled()
        for architecture in (*manifest.ARCHITECTURES, manifest.PTX)
    }
