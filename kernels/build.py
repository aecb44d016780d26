"""Compiles the manifest to cubins, and to PTX; needs triton and no GPU.

    python -m kernels.build --out build/kernels                  every variant and architecture
    python -m kernels.build --out build/kernels --arch 90        for one kind of GPU
    python -m kernels.build --out build/kernels --arch ptx       for all that have no cubins
    python -m kernels.build --check [--arch 90] [--only clamp]   compiles anew, compares the hashes

One archive per architecture, sm_90.zip, holds the cubins and manifest.json, what a launch needs
to know; ptx.zip holds PTX, which the driver of any GPU from sm_80 on compiles at first use. The
same sources and triton give the same bytes on every machine and in every folder: line numbers are
left out, and triton's own ptxas 12.9 assembles for all architectures (its other one, for sm_90 and
above, would ask for a driver of 580 or newer). hashes.json has the SHA-256 of each cubin and each
PTX.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import tempfile
import zipfile
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

HERE = Path(__file__).parent
HASHES = HERE / "hashes.json"
TRITON = "3.9.0"  # cubins differ between versions


Architecture = int | str  # 90 for sm_90, or manifest.PTX


def compile_one(name: str, architecture: Architecture) -> tuple[bytes, dict]:
    """The cubin or PTX of a variant, and what a launch of it needs to know."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from . import manifest

    variant = next(v for v in manifest.compiled() if v.name == name)
    is_ptx = architecture == manifest.PTX
    target, shape = (manifest.PTX_TARGET, manifest.PTX_SHAPE) if is_ptx else (architecture,) * 2
    constants, warps, stages = manifest.launch_shape(variant, shape)
    function = getattr(manifest.KERNELS[variant.kernel], variant.kernel)
    types = variant.types()
    divisible = [["tt.divisibility", 16]]
    promises: dict[tuple[int, ...], list] = {}
    for parameter, kind in types.items():
        index = function.arg_names.index(parameter)
        if isinstance(kind, tuple):
            pointers = [j for j, item in enumerate(kind) if item.startswith("*")]
            promises.update({(index, j): divisible for j in pointers})
        elif kind.startswith("*") or parameter in variant.aligned:
            promises[index,] = divisible
    source = ASTSource(
        fn=function,
        signature={**types, **dict.fromkeys(constants, "constexpr")},
        constexprs=constants,
        attrs=promises,
    )
    options = {
        "num_warps": warps,
        "num_stages": stages,
        "enable_fp_fusion": variant.fuses_fma,
    }
    if is_ptx:
        options["ptx_version"] = manifest.PTX_VERSION
    compiled = triton.compile(source, target=GPUTarget("cuda", target, 32), options=options)
    metadata = compiled.metadata
    limit = manifest.SHARED_LIMITS[shape]
    label = label_of(architecture)
    if metadata.shared > limit:
        raise SystemExit(f"{name} for {label}: {metadata.shared} of {limit} shared bytes")
    if metadata.global_scratch_size or metadata.profile_scratch_size or metadata.num_ctas != 1:
        raise SystemExit(f"{name} for {label}: needs scratch memory or a cluster")
    flat = [t for kind in types.values() for t in (kind if isinstance(kind, tuple) else (kind,))]
    code = compiled.asm["ptx"].encode() if is_ptx else compiled.asm["cubin"]
    return code, {
        "name": name,
        "function": metadata.name,
        "parameters": flat,
        "constants": constants,
        "warps": metadata.num_warps,
        "shared_bytes": metadata.shared,
        "sha256": hashlib.sha256(code).hexdigest(),
    }


def label_of(architecture: Architecture) -> str:
    """The name of an archive, and the end of a name in hashes.json: "sm_90", "ptx"."""
    return f"sm_{architecture}" if isinstance(architecture, int) else architecture


def fingerprint() -> str:
    """Of everything that the cubins follow from."""
    digest = hashlib.sha256(TRITON.encode())
    for path in sorted(HERE.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def cached(name: str, architecture: Architecture, cache: Path) -> tuple[bytes, dict]:
    stem = cache / f"{name}.{label_of(architecture)}"
    code_path, facts_path = Path(f"{stem}.code"), Path(f"{stem}.json")
    if facts_path.exists():
        return code_path.read_bytes(), json.loads(facts_path.read_text())
    code, facts = compile_one(name, architecture)
    code_path.write_bytes(code)
    partial = Path(f"{facts_path}.{os.getpid()}")  # appears whole, and after the code
    partial.write_text(json.dumps(facts))
    partial.replace(facts_path)
    return code, facts


def write_archive(path: Path, built: list[tuple[bytes, dict]], architecture: Architecture) -> None:
    facts = {
        "architecture": architecture,
        "triton": TRITON,
        "kernels": [entry for _, entry in built],
    }
    suffix = "cubin" if isinstance(architecture, int) else architecture
    files = {f"{entry['name']}.{suffix}": code for code, entry in built}
    files["manifest.json"] = (json.dumps(facts, indent=1) + "\n").encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), files[name], 8, 9)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="where the archives go")
    parser.add_argument("--arch", action="append", help='90, ..., or "ptx"; only this (repeatable)')
    parser.add_argument("--only", default="", help="only variants whose name starts so")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--check", action="store_true", help="compile anew, compare the hashes")
    parser.add_argument("--record", action="store_true", help="write the hashes")
    options = parser.parse_args(argv)
    if version("triton") != TRITON:
        raise SystemExit(f"triton {version('triton')}: the hashes are those of {TRITON}")

    import triton

    from . import manifest

    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    os.environ["TRITON_DISABLE_LINE_INFO"] = "1"
    os.environ["TRITON_PTXAS_PATH"] = str(tools / "ptxas")
    os.environ["TRITON_PTXAS_BLACKWELL_PATH"] = str(tools / "ptxas")
    os.environ.pop("TRITON_INTERPRET", None)
    architectures = [*manifest.ARCHITECTURES, manifest.PTX]
    if options.arch:
        architectures = [int(arch) if arch.isdecimal() else arch for arch in options.arch]
    unknown = set(architectures) - {*manifest.ARCHITECTURES, manifest.PTX}
    if unknown:
        raise SystemExit(f"--arch {unknown.pop()}: known are {manifest.ARCHITECTURES} and ptx")
    names = [v.name for v in manifest.compiled() if v.name.startswith(options.only)]
    jobs = [(name, arch) for arch in architectures for name in names]

    with tempfile.TemporaryDirectory() as scratch:
        os.environ["TRITON_CACHE_DIR"] = scratch
        cache = Path(scratch) / "cubins"
        if options.out and not options.check:
            cache = options.out / "cache" / fingerprint()
        cache.mkdir(parents=True, exist_ok=True)
        # Own processes: a fatal error of LLVM ends the process that meets it.
        with ProcessPoolExecutor(options.jobs, get_context("spawn")) as pool:
            built = list(pool.map(cached, *zip(*jobs, strict=True), [cache] * len(jobs)))
    found = {
        f"{name}.{label_of(arch)}": facts["sha256"]
        for (name, arch), (_, facts) in zip(jobs, built, strict=True)
    }
    known = json.loads(HASHES.read_text()) if HASHES.exists() else {}
    if options.record:
        HASHES.write_text(json.dumps({**known, **found}, indent=0, sort_keys=True) + "\n")
    if options.out:
        for arch in architectures:
            mine = [entry for job, entry in zip(jobs, built, strict=True) if job[1] == arch]
            write_archive(options.out / f"{label_of(arch)}.zip", mine, arch)
    differing = [name for name, sha in found.items() if known.get(name) != sha]
    print(f"{len(found)} kernels, {len(differing)} unlike {HASHES.name}")
    if options.check and differing:
        print("\n".join(differing))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
