"""Which kernels are taken for a GPU, and what is said where there is none."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

import textopia_fast as tx
from tests.support.fake_cuda import FakeCuda
from textopia_fast import _core, devices, doctor
from textopia_fast.errors import ConfigurationError


def write_archive(
    folder: Path, architecture: int | str, code: bytes = b"cubin", **changes: object
) -> Path:
    entry = {
        "name": "clamp.fp32.any",
        "function": "clamp",
        "parameters": ["*fp32", "*fp32", "fp32", "fp32", "i32"],
        "constants": {"BLOCK": 1024},
        "warps": 4,
        "shared_bytes": 0,
    } | changes
    stem, suffix = (f"sm_{architecture}", "cubin") if architecture != "ptx" else ("ptx", "ptx")
    path = folder / f"{stem}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", json.dumps({"kernels": [entry]}))
        archive.writestr(f"clamp.fp32.any.{suffix}", code)
    return path


@pytest.mark.parametrize(
    ("architecture", "taken"),
    [(80, 80), (86, 86), (87, 86), (89, 86), (90, 90), (100, None), (103, None)],
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
    assert f"--arch {100 if architecture == 100 else 'ptx'};" in caught.value.hint


@pytest.mark.parametrize(
    ("architecture", "taken"),
    [(80, "sm_80"), (89, "sm_86"), (90, "ptx"), (103, "ptx"), (121, "ptx")],
)
def test_ptx_is_for_all_that_have_no_cubins(tmp_path, monkeypatch, architecture, taken):
    monkeypatch.setenv("TEXTOPIA_KERNELS", str(tmp_path))
    for known in (80, 86, "ptx"):
        write_archive(tmp_path, known)
    assert devices.find_archive(architecture) == tmp_path / f"{taken}.zip"


@pytest.mark.parametrize("known", [80, "ptx"])
def test_older_gpus_are_refused_whatever_there_is(tmp_path, monkeypatch, known):
    monkeypatch.setenv("TEXTOPIA_KERNELS", str(tmp_path))
    write_archive(tmp_path, known)
    with pytest.raises(ConfigurationError, match="T4 is sm_75, allowed are GPUs from sm_80 on"):
        devices.find_archive(75, "T4")


def test_kernels_of_ptx_run_as_others_do(tmp_path, monkeypatch):
    """From the archive through the driver, which compiles text at first use, to a launch."""
    fake = FakeCuda()
    fake.set_device(architecture=103)
    text = b"//\n.version 8.0\n.target sm_80\n// fake clamp fp32 any\n"
    monkeypatch.setenv("TEXTOPIA_KERNELS", str(tmp_path))
    path = write_archive(tmp_path, "ptx", code=text)
    driver = fake.driver()
    assert devices.find_archive(driver.devices[0]["architecture"]) == path
    gpu = _core.Gpu(driver, 0, list(devices.read_archive(path)))
    assert "cuModuleLoadData" not in fake.names()
    x, target = np.float32([-2.0, 0.5, 2.0]), np.zeros(3, np.float32)
    numbers = [number.tobytes() for number in (np.float32(-1), np.float32(1), np.int32(3))]
    gpu.run_kernel("clamp.fp32.any", (1, 1, 1), [x, target, *numbers])
    np.testing.assert_array_equal(target, [-1.0, 0.5, 1.0])
    monkeypatch.setattr(doctor._core, "CudaDriver", lambda *_: driver)
    finding = next(one for one in doctor.examine() if one.name == "gpu kernels")
    assert "ptx in" in finding.value
    assert "for cuda:0 compiled by the driver at first use" in finding.value
    assert finding.hint is None
    assert not finding.problem


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


@pytest.mark.parametrize(
    ("requires", "wheels"),
    [
        (None, "nvidia-cublas nvidia-cudnn"),
        (
            ["numpy>=1.21.6", 'nvidia-cublas~=13.0; extra == "cuda"', "nvidia-cudnn-cu13~=9.0"],
            "nvidia-cublas nvidia-cudnn-cu13",
        ),
        (
            ["nvidia-cublas-cu12~=12.0", "nvidia-cudnn-cu12~=9.0"],
            "nvidia-cublas-cu12 nvidia-cudnn-cu12",
        ),
    ],
)
def test_doctor_says_which_wheels_bring_what_is_missing(monkeypatch, requires, wheels):
    def installed(name: str) -> list[str]:
        assert name == "onnxruntime-gpu"
        if requires is None:
            raise devices.metadata.PackageNotFoundError(name)
        return requires

    monkeypatch.setattr(devices.metadata, "requires", installed)
    missing = ["libcublasLt.so", "libcublas.so", "libcudnn.so"]
    monkeypatch.setattr(devices, "missing_libraries", lambda: missing)
    finding = next(one for one in doctor.examine() if one.name == "gpu libraries")
    assert finding.value == f"missing: {', '.join(missing)}"
    assert finding.hint.endswith(f"pip install {wheels}")
