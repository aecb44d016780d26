"""The table of everything that is compiled: kernel x element type x shape class x architecture.

`python -m kernels.manifest` prints it.
"""

from __future__ import annotations

from collections.abc import Iterator

from . import (
    attention,
    blend,
    clamp,
    combine,
    geglu,
    group_norm,
    langevin_step,
    layer_norm,
    rescale,
    threshold,
)
from .variant import Variant

KERNELS = {
    module.__name__.rsplit(".", 1)[-1]: module
    for module in (
        attention,
        blend,
        clamp,
        combine,
        geglu,
        group_norm,
        langevin_step,
        layer_norm,
        rescale,
        threshold,
    )
}

# Compute capability times ten: A100; RTX 30; RTX 40, L40S; H100, H200; B200; RTX 50.
ARCHITECTURES = (80, 86, 89, 90, 100, 120)
# For GPUs without a cubin: text that the driver compiles, for the oldest architecture in the PTX of
# CUDA 12.0, with the launch shapes of the GPUs with the least shared memory.
PTX, PTX_TARGET, PTX_SHAPE, PTX_VERSION = "ptx", 80, 86, 80
# Shared memory that one program may have, bytes.
SHARED_LIMITS = {80: 166912, 86: 101376, 89: 101376, 90: 232448, 100: 232448, 120: 101376}
SMALL = {arch for arch, limit in SHARED_LIMITS.items() if limit < 163840}

# These change the state of the loop, which is float32; the graph kernels run in 16 bits, and their
# float32 variants exist for the interpreter, which has no bfloat16 dot product.
LOOP_KERNELS = {"blend", "clamp", "combine", "langevin_step", "rescale", "threshold"}


def variants() -> Iterator[Variant]:
    """Every variant, those for the interpreter alone included."""
    for module in KERNELS.values():
        yield from module.variants()


def compiled() -> Iterator[Variant]:
    """The variants that are compiled for each architecture."""
    for variant in variants():
        if variant.dtype != "fp32" or variant.kernel in LOOP_KERNELS:
            yield variant


def launch_shape(variant: Variant, architecture: int) -> tuple[dict[str, int], int, int]:
    """Constants, warps and stages of a variant on an architecture."""
    small = dict(variant.small) if architecture in SMALL else {}
    warps, stages = small.pop("warps", variant.warps), small.pop("stages", variant.stages)
    return {**variant.constants, **small}, warps, stages


if __name__ == "__main__":
    for variant in compiled():
        print(f"{variant.name:28} warps {variant.warps}  stages {variant.stages}", end="  ")
        print(" ".join(f"{name}={value}" for name, value in variant.constants.items()))
    count = len(list(compiled()))
    print(f"{count} variants for {len(ARCHITECTURES)} architectures")
