"""The commands that list: samplers, inspect, doctor, version, help."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.tiny_directory import build_tiny_directory
from textopia_fast import doctor, errors
from textopia_fast.cli import exits, main


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"], ["inspect", "--help"]])
def test_help(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 0
    assert "Usage: textopia-fast" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["bogus"], ["inspect"], ["samplers", "x"]])
def test_wrong_commands(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == exits.USAGE
    assert capsys.readouterr().err.startswith("error[usage]: ")


def test_samplers(capsys: pytest.CaptureFixture[str]) -> None:
    from textopia_fast.samplers import STEP_BY_STEP, names

    assert main(["samplers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*names(), *STEP_BY_STEP]
    assert all("arXiv" in line or "Roberts" in line for line in lines)


def test_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = build_tiny_directory(tmp_path / "model", external_data=True, timestep="steps")
    assert main(["inspect", str(root)]) == 0
    out = capsys.readouterr().out
    for text in (
        "StableDiffusionPipeline",
        "sample: float32 [batch_size, 4, height, width]",
        "timestep: float32 [steps]",
        "of external data",
        "opset 18, by tiny_directory",
        "DDIMScheduler",
        "536 ids, 77 tokens a prompt",
        "64x64 pixels",
        "not run",
    ):
        assert text in out


def test_inspect_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "/nowhere"]) == exits.MODEL
    assert capsys.readouterr().err.startswith("error[model_not_found]: ")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from textopia_fast import __version__

    assert main(["version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    findings = {finding.name: finding for finding in doctor.examine()}
    assert main(["doctor"]) == (0 if doctor.can_generate(tuple(findings.values())) else 3)
    out = capsys.readouterr().out
    for name in ("python", "cpu features", "instruction set", "onnx runtime", "gpu"):
        assert name in out
    assert not findings["cpu features"].problem
    assert not findings["instruction set"].problem
    assert not findings["gpu"].problem


def test_doctor_without_a_runtime(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from textopia_fast import _ort

    def missing() -> None:
        raise errors.ConfigurationError("onnxruntime: is not installed.")

    monkeypatch.setattr(_ort, "runtime_info", missing)
    assert main(["doctor"]) == exits.MODEL
    out = capsys.readouterr().out
    assert "!! onnx runtime" in out
    assert "pip install" in out


def test_doctor_survives_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(doctor, "_python", broken)
    findings = doctor.examine()
    assert any(f.value == "RuntimeError: broken" and f.problem for f in findings)
    assert not doctor.can_generate(findings)
