"""The GPU kernels in Triton's interpreter, against their NumPy references, on odd shapes. Each
kernel brings its own check; tolerances and their reasons are in kernels/variant.py."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

from kernels import combine, manifest
from kernels.interpreted import launch

from textopia_fast import _core

VARIANTS = [v for v in manifest.variants() if v.dtype != "bf16"]  # see kernels/interpreted.py
# As they are compiled where a program has little shared memory.
SMALL = [v for v in VARIANTS if v.small and v in list(manifest.compiled())]


def draw_noise(seeds: np.ndarray, draw: int, size: int) -> np.ndarray:
    """A draw of csrc/rng's philox stream that may be far along: the stream itself counts from 0."""
    from tests.rng.reference_philox import philox_normals

    return np.stack([philox_normals(int(seed), draw, size) for seed in seeds])


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_equals_its_reference(variant):
    rng = np.random.default_rng(sum(variant.name.encode()))
    module = manifest.KERNELS[variant.kernel]
    extra = (draw_noise,) if variant.kernel in ("combine", "langevin_step") else ()
    checks = list(module.check(launch, variant, rng, *extra))
    assert checks
    assert [check for check in checks if not check.passed] == []


@pytest.mark.parametrize("variant", SMALL, ids=lambda variant: variant.name)
def test_small_tiles_equal_the_reference(variant):
    constants, _, _ = manifest.launch_shape(variant, 86)
    assert constants != variant.constants
    test_equals_its_reference(replace(variant, constants=constants))


def test_noise_is_that_of_the_cpu_bit_for_bit():
    variant = next(v for v in combine.variants() if v.name == "combine.fp32.any_noise")
    images, size, draws = 3, 1000 + 7, 3
    for draw in range(draws):
        arguments = combine.example(
            np.random.default_rng(5),
            variant,
            images=images,
            size=size,
            halves=1,
            latent_weights=(0.0,) * combine.LATENTS,
            positive_weights=(0.0,) * combine.OUTPUTS,
            noise_weight=1.0,
            draw=draw,
        )
        launch(variant, combine.grid(size, images), arguments)
        stream = _core.NoiseStream.philox([int(seed) for seed in arguments["seeds"]])
        for _ in range(draw + 1):
            wanted = stream.draw(images, size)
        np.testing.assert_array_equal(arguments["target"], wanted)


def test_sums_are_those_of_the_cpu_bit_for_bit():
    variant = next(v for v in combine.variants() if v.name == "combine.fp32.any")
    size = 1003
    arguments = combine.example(
        np.random.default_rng(6),
        variant,
        images=1,
        size=size,
        factor_rows=(-1,) * combine.OUTPUTS,
    )
    launch(variant, combine.grid(size, 1), arguments)
    sources, weights = [], []
    for latent, weight in zip(arguments["latents"], arguments["latent_weights"], strict=True):
        sources.append(np.ascontiguousarray(latent[0]))
        weights.append(weight)
    halves = zip(
        arguments["outputs"],
        arguments["positive_weights"],
        arguments["negative_weights"],
        strict=True,
    )
    for output, positive, negative in halves:
        sources += [np.ascontiguousarray(output[1]), np.ascontiguousarray(output[0])]
        weights += [positive, negative]
    used = [(s, w) for s, w in zip(sources, weights, strict=True) if w]
    target, scaled = np.empty(size, np.float32), np.empty(size, np.float32)
    _core.combine(
        "scalar", [s for s, _ in used], [w for _, w in used], [1.0, 0.625], [target, scaled]
    )
    np.testing.assert_array_equal(arguments["target"][0], target)
    np.testing.assert_array_equal(arguments["network_input"][1], scaled)


def test_combine_leaves_unused_memory_alone():
    """Rows that no network run wrote may hold anything, NaN included; empty slots are null."""
    variant = next(v for v in combine.variants() if v.name == "combine.fp16.any")
    size, images = 40, 2
    garbage = np.full((2 * images, size), np.nan, np.float16)
    arguments = combine.example(
        np.random.default_rng(7),
        variant,
        images=images,
        size=size,
        outputs=(garbage,) * combine.OUTPUTS,
        negative_weights=(0.0,) * combine.OUTPUTS,
        positive_weights=(0.0,) * combine.OUTPUTS,
        target_size=0,
        input_halves=1,
        level_words=0,
    )
    before = arguments["network_input"].copy()
    launch(variant, combine.grid(size, images), arguments)
    assert not arguments["target"].any()
    assert not arguments["network_level"].any()
    np.testing.assert_array_equal(arguments["network_input"][:images], before[:images])
    assert np.isfinite(arguments["network_input"]).all()
    assert arguments["bad_step"][0] == 2**31 - 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_combine_tells_the_first_step_that_is_not_finite(value):
    variant = next(v for v in combine.variants() if v.name == "combine.fp32.any")
    arguments = combine.example(np.random.default_rng(8), variant, images=2, size=33)
    arguments["latents"][0][1, 32] = value
    for step in (7, 5, 6):
        arguments["step"] = step
        launch(variant, combine.grid(33, 2), arguments)
    assert arguments["bad_step"][0] == 5
