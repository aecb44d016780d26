"""Where the loop runs: the CPU, or an NVIDIA GPU with kernels that were compiled for it.

Nothing is opened when this module is imported. Kernels come in archives, one per architecture and
one of PTX for all others (kernels/build.py), from the folder that TEXTOPIA_KERNELS names or from
the package.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import re
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from . import _core
from .checks import refuse
from .errors import ConfigurationError

__all__ = [
    "check_device",
    "find_archive",
    "kernel_folders",
    "missing_libraries",
    "open_device",
    "preload_libraries",
    "read_archive",
    "wheel_of",
]

KERNELS_VARIABLE = "TEXTOPIA_KERNELS"
PTX_ARCHIVE = "ptx.zip"
OLDEST = 80  # compute capability 8.0: the kernels copy and multiply as those GPUs do
ARCHITECTURES = (80, 86, 89, 90, 100, 120)  # that kernels/build.py makes cubins for

# What ONNX Runtime's CUDA provider is linked to, in the order in which they need each other, and
# the wheel of NVIDIA's that has each, in a folder that the linker does not search. Some names of
# wheels end with the CUDA version.
_LIBRARIES = {
    "libcudart.so": "nvidia-cuda-runtime",
    "libnvrtc.so": "nvidia-cuda-nvrtc",
    "libcublasLt.so": "nvidia-cublas",
    "libcublas.so": "nvidia-cublas",
    "libcurand.so": "nvidia-curand",
    "libcufft.so": "nvidia-cufft",
    "libcudnn.so": "nvidia-cudnn",
}
_DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    zipfile.BadZipFile,
)
_TYPE_BYTES = {"i32": 4, "u32": 4, "fp32": 4, "i64": 8, "u64": 8, "fp64": 8}


def open_device(device: str) -> _core.Gpu | None:
    """The GPU of "cuda" or "cuda:N" with its kernels; None for "cpu".

    Raises:
        ConfigurationError: Another name, no driver, one older than CUDA 12, no such device, or no
            kernels for it.
        DeviceLostError, OutOfMemoryError: The device cannot be started.
    """
    ordinal = check_device(device)
    if ordinal is None:
        return None
    driver = _core.CudaDriver()
    devices = driver.devices
    if ordinal >= len(devices):
        raise ConfigurationError(
            f"device: {device} was asked for, the driver shows {len(devices)} devices.",
            hint="CUDA_VISIBLE_DEVICES and the container decide which devices are shown.",
            param="device",
        )
    archive = find_archive(devices[ordinal]["architecture"], devices[ordinal]["name"])
    kernels = list(read_archive(archive))
    preload_libraries()
    return _core.Gpu(driver, ordinal, kernels)


def check_device(device: Any) -> int | None:
    """0 of "cuda", N of "cuda:N", None of "cpu". Raises ConfigurationError."""
    if isinstance(device, str):
        if device == "cpu":
            return None
        name, _, number = device.partition(":")
        if name == "cuda" and (device == "cuda" or (number.isdecimal() and len(number) < 4)):
            return int(number or 0)
    refuse("device", device, 'is "cpu", "cuda" or "cuda:N"', kind=ConfigurationError)


def kernel_folders() -> list[Path]:
    """Where archives are looked for, best first."""
    chosen = os.environ.get(KERNELS_VARIABLE)
    return [Path(chosen)] if chosen else [Path(__file__).parent / "gpu_kernels"]


def find_archive(architecture: int, name: str = "this GPU") -> Path:
    """The archive for a compute capability, 90 for 9.0.

    A cubin runs on its own architecture and, up to 8.9, on later ones of the same generation. All
    others from 8.0 on take PTX, which the driver compiles at first use.

    Raises:
        ConfigurationError: There is none.
    """
    found: dict[int, Path] = {}
    ptx = None
    for folder in kernel_folders():
        if ptx is None and (folder / PTX_ARCHIVE).exists():
            ptx = folder / PTX_ARCHIVE
        for path in sorted(folder.glob("sm_*.zip")):
            number = path.stem.removeprefix("sm_")
            if number.isdecimal():
                found.setdefault(int(number), path)
    usable = [
        arch
        for arch in found
        if arch == architecture or (arch <= architecture and arch // 10 == architecture // 10 == 8)
    ]
    if usable:
        return found[max(usable)]
    if architecture < OLDEST:
        raise ConfigurationError(
            f"device: {name} is sm_{architecture}, allowed are GPUs from sm_{OLDEST} on.",
            hint='device="cpu" works on this machine.',
            param="device",
        )
    if ptx is not None:
        return ptx
    present = ", ".join(f"sm_{arch}" for arch in sorted(found)) or "none at all"
    raise ConfigurationError(
        f"device: there are no kernels for {name}, sm_{architecture}; there are {present}.",
        hint="From a checkout, with triton installed: python -m kernels.build --out FOLDER --arch "
        f"{architecture if architecture in ARCHITECTURES else 'ptx'}; then set "
        f"{KERNELS_VARIABLE}=FOLDER.",
        param="device",
    )


def read_archive(path: Path) -> Iterator[_core.KernelImage]:
    """The kernels in an archive of kernels/build.py; each is loaded when it is first needed.

    Raises:
        ConfigurationError: The file is damaged.
    """
    suffix = "ptx" if path.name == PTX_ARCHIVE else "cubin"
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in json.loads(archive.read("manifest.json"))["kernels"]:
                yield _core.KernelImage(
                    entry["name"],
                    entry["function"],
                    archive.read(f"{entry['name']}.{suffix}"),
                    [parameter_bytes(kind) for kind in entry["parameters"]],
                    warps=entry["warps"],
                    shared_bytes=entry["shared_bytes"],
                    constants=entry["constants"],
                )
    except _DAMAGE as error:
        raise ConfigurationError(
            f"kernels: {path} cannot be read: {error!r}.",
            hint="Build it again with python -m kernels.build, or reinstall the package.",
        ) from error


def parameter_bytes(kind: str) -> int:
    """Bytes of a Triton type: pointers and 64-bit numbers 8, others 4."""
    return 8 if kind.startswith("*") else _TYPE_BYTES[kind]


def _library_files() -> dict[str, Path]:
    """The libraries of NVIDIA's wheels by stem, without importing anything."""
    try:
        spec = importlib.util.find_spec("nvidia")
    except (ImportError, ValueError):
        return {}
    found: dict[str, Path] = {}
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(folder).glob("*/lib/lib*.so.*")):
            stem = path.name.partition(".so.")[0] + ".so"
            if stem in _LIBRARIES:
                found.setdefault(stem, path)
    return found


def preload_libraries() -> list[str]:
    """Loads NVIDIA's libraries from their wheels, so that ONNX Runtime finds them loaded.

    Returns:
        Those that were loaded. Libraries of the system are left to the linker.
    """
    files, loaded = _library_files(), []
    for stem in _LIBRARIES:
        if stem not in files:
            continue
        try:
            ctypes.CDLL(str(files[stem]), mode=ctypes.RTLD_GLOBAL)
            loaded.append(stem)
        except OSError:  # ONNX Runtime's own error names what is missing
            continue
    return loaded


def wheel_of(library: str) -> str:
    """The wheel that has that library, as the installed onnxruntime-gpu names it."""
    wheel = _LIBRARIES[library]
    try:
        wanted = metadata.requires("onnxruntime-gpu") or []
    except metadata.PackageNotFoundError:
        return wheel
    names = [found[0] for need in wanted if (found := re.match(r"[\w-]+", need))]
    return next((name for name in names if re.fullmatch(rf"{wheel}(-cu\d+)?", name)), wheel)


def missing_libraries() -> list[str]:
    """Libraries of the CUDA provider that neither a wheel nor the linker has."""
    files = _library_files()
    missing = []
    for stem in _LIBRARIES:
        if stem in files:
            continue
        for number in ("13", "12", "11", "10", "9"):
            try:
                ctypes.CDLL(f"{stem}.{number}")
                break
            except OSError:
                continue
        else:
            missing.append(stem)
    return missing
