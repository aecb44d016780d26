"""The checks that benchmarks/gpu/check.sh runs on a GPU, here on the fake driver: the kernels of
the loop as the fake computes them, against their references, through the launcher of the GPU."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.fake_cuda import FakeCuda, graph_kernels, kernel_names
from textopia_fast import devices

pytest.importorskip("triton")

from benchmarks.gpu.check import draw_noise
from benchmarks.gpu.launcher import Launcher, as_compiled
from kernels import manifest

KNOWN = {*kernel_names(), *graph_kernels()}
VARIANTS = [variant for variant in manifest.compiled() if variant.name in KNOWN]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_passes_its_check(variant):
    launch = Launcher(FakeCuda().gpu())
    extra = (draw_noise,) if variant.kernel in ("combine", "langevin_step") else ()
    module = manifest.KERNELS[variant.kernel]
    rng = np.random.default_rng(sum(variant.name.encode()))
    checks = list(module.check(launch, as_compiled(variant, 90), rng, *extra))
    assert checks
    assert [check for check in checks if not check.passed] == []
    assert launch.milliseconds == 1.0  # what the fake says


def test_every_compiled_kernel_is_known_to_the_fake():
    assert {variant.name for variant in manifest.compiled()} <= KNOWN


def test_the_fake_knows_the_constants():
    """Those that launches of graph kernels depend on."""
    known = graph_kernels()
    for variant in VARIANTS:
        if variant.kernel not in manifest.LOOP_KERNELS:
            constants = {"APPLY": 0, "SILU": 0, "BIAS": 0} | known[variant.name]
            found = {name: value for name, value in variant.constants.items() if name in constants}
            assert {name: constants[name] for name in found} == found
            assert {"WIDTH", "BLOCK"} & found.keys()


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_the_fake_knows_the_parameters(variant):
    from tests.support.fake_cuda import PARAMETERS

    flat = []
    for kind in variant.types().values():
        flat += kind if isinstance(kind, tuple) else (kind,)
    assert [devices.parameter_bytes(kind) for kind in flat] == PARAMETERS[variant.kernel]
