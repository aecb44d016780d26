"""Looks at the installation and the machine: can pictures be made here, and with what?"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata

from . import _core, _ort, devices
from .errors import TextopiaError
from .models import BUNDLED
from .precision import describe_precision
from .providers import describe_openvino, describe_provider

__all__ = ["INSTALL_RUNTIME", "Finding", "can_generate", "examine"]

INSTALL_RUNTIME = 'Install ONNX Runtime: pip install "textopia-fast[cpu]"'


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        name: What was looked at.
        value: What was found.
        problem: It stands in the way of making pictures.
        hint: What to do about it, or None.
    """

    name: str
    value: str
    problem: bool = False
    hint: str | None = None


def examine() -> tuple[Finding, ...]:
    """Looks at everything. Never raises: what fails becomes a finding."""
    looks: tuple[tuple[str, Callable[[], Finding]], ...] = (
        ("textopia-fast", _version),
        ("python", _python),
        ("platform", _platform),
        ("cpu features", _cpu_features),
        ("instruction set", _instruction_set),
        ("matrix unit", _matrix_unit),
        ("precision", _precision),
        ("usable cpus", _cpus),
        ("onnx runtime", _runtime),
        ("provider", _provider),
        ("openvino", _openvino),
        ("gpu", _gpu),
        ("gpu kernels", _gpu_kernels),
        ("gpu libraries", _gpu_libraries),
        ("bundled models", _bundled),
    )
    return tuple(_guarded(name, look) for name, look in looks)


def can_generate(findings: tuple[Finding, ...]) -> bool:
    """Nothing that was found stands in the way of making pictures."""
    return not any(finding.problem for finding in findings)


def _guarded(name: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except TextopiaError as error:
        return Finding(name, error.message, problem=True, hint=error.hint)
    except Exception as error:  # a report is no place to fail
        return Finding(name, f"{type(error).__name__}: {error}", problem=True)


def _version() -> Finding:
    try:
        version = metadata.version("textopia-fast")
    except metadata.PackageNotFoundError:
        version = "not installed"
    return Finding("textopia-fast", f"{version} (core {_core.__version__})")


def _python() -> Finding:
    return Finding("python", f"{platform.python_version()} ({sys.implementation.name})")


def _platform() -> Finding:
    return Finding("platform", f"{platform.system()} {platform.release()} {platform.machine()}")


def _cpu_features() -> Finding:
    return Finding("cpu features", " ".join(_core.cpu_features()) or "none known")


def _instruction_set() -> Finding:
    supported = ", ".join(_core.supported_isas())
    forced = " (TEXTOPIA_FORCE_ISA)" if os.environ.get("TEXTOPIA_FORCE_ISA") else ""
    return Finding("instruction set", f"{_core.active_isa()}{forced} of {supported}")


def _matrix_unit() -> Finding:
    supported = ", ".join(_core.supported_matrix_units())
    refusal = _core.amx_refusal()
    note = f"; amx_bf16: {refusal}" if refusal else ""
    own = f"{_core.active_matrix_unit()} of {supported}; int8: {_core.int8_unit()}"
    return Finding("matrix unit", own + note)


def _precision() -> Finding:
    return Finding("precision", describe_precision())


def _cpus() -> Finding:
    usable, present = _core.usable_cpus(), os.cpu_count()
    return Finding("usable cpus", f"{usable} of {present}; a pipeline takes {usable} threads")


def _runtime() -> Finding:
    try:
        info = _ort.runtime_info()
    except TextopiaError as error:
        return Finding("onnx runtime", error.message, True, error.hint or INSTALL_RUNTIME)
    providers = ", ".join(name.removesuffix("ExecutionProvider") for name in info["providers"])
    return Finding("onnx runtime", f"{info['version']} at {info['path']} ({providers})")


def _provider() -> Finding:
    return Finding("provider", describe_provider())


def _openvino() -> Finding:
    return Finding("openvino", describe_openvino())


def _gpu() -> Finding:
    """The driver and its devices. No GPU is no problem: the CPU is the default."""
    try:
        driver = _core.CudaDriver()
    except TextopiaError as error:
        return Finding("gpu", f"{error.message} The CPU is used")
    found = driver.devices
    version = f"driver for CUDA {driver.version // 1000}.{driver.version % 1000 // 10}"
    if not found:
        return Finding("gpu", f"{version}, no device is shown; the CPU is used")
    shown = "; ".join(
        f"cuda:{i} {d['name']}, sm_{d['architecture']}, {d['memory_bytes'] >> 30} GiB"
        for i, d in enumerate(found)
    )
    return Finding("gpu", f"{version}; {shown}")


def _gpu_kernels() -> Finding:
    folder = ", ".join(map(str, devices.kernel_folders()))
    found = [
        path.stem
        for place in devices.kernel_folders()
        for path in place.glob("*.zip")
        if path.name == devices.PTX_ARCHIVE or path.stem.startswith("sm_")
    ]
    try:
        present = _core.CudaDriver().devices
    except TextopiaError:
        present = []
    hints = []
    value = f"{' '.join(sorted(found)) or 'none'} in {folder}"
    for i, gpu in enumerate(present):
        try:
            archive = devices.find_archive(gpu["architecture"], gpu["name"])
            if archive.name == devices.PTX_ARCHIVE:
                value += f"; for cuda:{i} compiled by the driver at first use"
        except TextopiaError as error:
            hints.append(str(error))
    return Finding("gpu kernels", value, hint=" ".join(hints) or None)


def _gpu_libraries() -> Finding:
    missing = devices.missing_libraries()
    if not missing:
        return Finding("gpu libraries", "all that ONNX Runtime's CUDA provider needs")
    wheels = " ".join(sorted({devices.wheel_of(library) for library in missing}))
    hint = f'For device="cuda": pip install "textopia-fast[cuda]", or alone: pip install {wheels}'
    return Finding("gpu libraries", f"missing: {', '.join(missing)}", hint=hint)


def _bundled() -> Finding:
    found = [name for name, path in BUNDLED.items() if (path / "model_index.json").is_file()]
    return Finding("bundled models", ", ".join(found) or "none")
