"""Builds the libraries that ONNX Runtime's CUDA provider is linked to, without CUDA.

The provider's own symbol table says which libraries and functions those are. Functions with a body
are in runtime.c and libraries.c; the others get one here that answers success. The result is laid
out as NVIDIA's wheels are, `nvidia/fake/lib/lib*.so.N`, which the package's search finds when the
folder is on sys.path; the driver, `libcuda.so.1`, lies beside them.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
DRIVER = HERE.parent / "fake_cuda.c"

# Soname to source and flags. The provider opens cuDNN by name, when it is there.
LIBRARIES = {
    "libcuda.so.1": (DRIVER, ()),
    "libcudart.so.13": (HERE / "runtime.c", ()),
    "libcublasLt.so.13": (HERE / "libraries.c", ("-DFAKE_CUBLASLT",)),
    "libcublas.so.13": (HERE / "libraries.c", ("-DFAKE_CUBLAS",)),
    "libcurand.so.10": (HERE / "libraries.c", ()),
    "libcudnn.so.9": (HERE / "libraries.c", ("-DFAKE_CUDNN",)),
}
FLAGS = ("-O1", "-g", "-ffp-contract=off", "-shared", "-fPIC", "-Wno-format-zero-length")
SHARED = ("libcuda.so.1", "libcudart.so.13")  # what the others are linked to


def build(provider: Path, compiler: str, target: Path) -> Path:
    """Builds every library for that libonnxruntime_providers_cuda.so; returns the libcuda.so.1."""
    folder = target / "nvidia" / "fake" / "lib"
    folder.mkdir(parents=True)
    wanted = needed_symbols(provider)
    wanted["libcudnn.so.9"] = named_in(provider, b"cudnn")
    unknown = wanted.keys() - LIBRARIES.keys() - {""}
    if unknown:
        raise RuntimeError(f"the provider needs {sorted(unknown)}, which the fake does not have")
    wanted["libcuda.so.1"] = {name for name in wanted.pop("", set()) if name.startswith("cu")}
    for soname, (source, flags) in LIBRARIES.items():
        stubs = target / f"{soname}.c"
        missing = wanted.get(soname, set()) - defined_in(source, flags, compiler)
        stubs.write_text(stub_source(missing))
        versions = target / f"{soname}.map"
        versions.write_text(f"{soname} {{ global: *; }};\n")
        below = [folder / name for name in SHARED if (folder / name).exists()]
        command = [compiler, *FLAGS, *flags, source, stubs, *below, "-o", folder / soname, "-lm"]
        command += [f"-Wl,-soname,{soname}", f"-Wl,--version-script={versions}"]
        subprocess.run([*map(str, command), "-Wl,-rpath,$ORIGIN"], check=True)
    return folder / "libcuda.so.1"


def needed_symbols(library: Path) -> dict[str, set[str]]:
    """Undefined functions per library that they are expected from, "" where none is named."""
    command = ["nm", "-D", "--undefined-only", str(library)]
    table = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, set[str]] = {}
    for line in table.splitlines():
        name, _, version = line.split()[-1].partition("@")
        if not version or version.startswith(("libcu", "libnv")):
            found.setdefault(version, set()).add(name)
    return found


def named_in(library: Path, prefix: bytes) -> set[str]:
    """Function names among the library's strings: what it looks up at run time."""
    return {
        name.decode()
        for name in re.findall(rb"\0(%s[A-Z]\w+)(?=\0)" % prefix, library.read_bytes())
    }


def defined_in(source: Path, flags: tuple[str, ...], compiler: str) -> set[str]:
    """Functions of CUDA that have a body there."""
    command = [compiler, "-E", "-P", *flags, str(source)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return set(re.findall(r"\b(__cuda\w+|cu\w+)\s*\([^;{}]*\)\s*\{", text))


def stub_source(names: set[str]) -> str:
    """A body for each: recorded, failing where a test asks for it, else success."""
    lines = ["int fake_record(const char *name, const char *detail);"]
    for name in sorted(names):
        if "Create" in name:
            lines.append(
                f"int {name}(void **made) {{ static int one; *made = &one; "
                f'return fake_record("{name}", ""); }}'
            )
        else:
            lines.append(f'int {name}(void) {{ return fake_record("{name}", ""); }}')
    return "\n".join(lines) + "\n"
