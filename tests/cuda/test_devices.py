"""Which kernels are taken for a GPU, and what is said where there is none."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

import textopia_fast as tx
from textopia_fast import devices, doctor
from textopia_fast.errors import ConfigurationError


def write_archive(folder: Path, architecture: int, **changes: object) -> Path:
    entry = {
        "name": "clamp.fp32.any",
        "function": "clamp",
        "parameters": ["*fp32", "*fp32", "fp32", "fp32", "i32"],
        "constants": {"BLOCK": 1024},
        "warps": 4,
        "shared_bytes": 0,
    } | changes
    path = folder / f"sm_{architecture}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", json.dumps({"kernels": [entry]}))
        archive.writestr("clamp.fp32.any.cubin", b"cubin")
    return path


@pytest.mark.parametrize(
    ("architecture", "taken"),
    [(80, 80), (86, 86), (87, 86), (89, 86), (90, 90), (100, None), (75, None), (103, None)],
)
def test_a_cubin_runs_on_its_own_generation(tmp_path, monkeypatch, architecture, taken):
    monkeypatch.setenv("TEXTOPIA_KERNELS", str(tmp_path))
    for known in (80, 86, 90):
        write_archive(tmp_path, known)
    if taken is not None:
        assert devices.find_archive(architecture) == tmp_path / f"sm_{taken}.zip"
        return
    with pytest.raises(ConfigurationError, match=r"there are sm_80, sm_86, sm_90") as caught:
        devices.find_archive(architecture, "GeForce X")
    assert f"--arch {architecture}" in caught.value.hint


def test_no_kernels_at_all(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXTOPIA_KERNELS", str(tmp_path / "nothing"))
    with pytest.raises(ConfigurationError, match="none at all"):
        devices.find_archive(90)


@pytest.mark.parametrize(
    "changes", [{"parameters": ["float"]}, {"warps": "many"}, {"name": "other"}, {"constants": 3}]
)
def test_damaged_archives(tmp_path, changes):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        list(devices.read_archive(write_archive(tmp_path, 90, **changes)))
    (tmp_path / "sm_80.zip").write_bytes(b"PK")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        list(devices.read_archive(tmp_path / "sm_80.zip"))


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:-1", "cuda:x", "CUDA", "", 0, None])
def test_other_devices_are_refused(device):
    with pytest.raises(ConfigurationError, match="device"):
        devices.open_device(device)


def test_without_a_driver(monkeypatch):
    """On a machine with a driver these would be other errors."""
    try:
        devices._core.CudaDriver()
    except ConfigurationError:
        pass
    else:
        pytest.skip("this machine has NVIDIA's driver")
    with pytest.raises(ConfigurationError, match="no NVIDIA driver") as caught:
        tx.Pipeline.from_pretrained("tiny-shapes", device="cuda")
    assert "525" in caught.value.hint
    findings = {finding.name: finding for finding in doctor.examine()}
    assert "no NVIDIA driver" in findings["gpu"].value
    assert not findings["gpu"].problem


def test_a_cpu_provider_does_not_run_on_a_gpu():
    with pytest.raises(ConfigurationError, match="provider"):
        tx.Pipeline.from_pretrained("tiny-shapes", device="cuda", provider="cpu")
