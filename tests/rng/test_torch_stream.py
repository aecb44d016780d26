"""The stream that equals torch.randn of CPU generators, bit for bit."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from textopia_fast import _core, errors

GOLDEN = json.loads((Path(__file__).parent / "golden" / "torch_randn.json").read_text())
REGENERATE = f"made with torch {GOLDEN['torch']}; to make it anew run {GOLDEN['made_by']}"


def same_bits(a, b):
    return a.shape == b.shape and bool((a.view(np.uint32) == b.view(np.uint32)).all())


@pytest.mark.parametrize("series", GOLDEN["series"], ids=lambda series: f"seed{series['seed']}")
def test_golden(series):
    stream = _core.NoiseStream.torch([series["seed"]])
    for draw in series["draws"]:
        bits = stream.draw(1, draw["count"])[0].view(np.uint32)
        assert bits[:4].tolist() == draw["first_bits"], REGENERATE
        assert hashlib.sha256(bits.tobytes()).hexdigest() == draw["sha256"], REGENERATE


def test_the_published_values_of_seed_0():
    """What `torch.manual_seed(0); torch.randn(16)` is known to print, in any version."""
    known = [-1.1258, -1.1524, -0.2506, -0.4339, 0.8487, 0.6920, -0.3160, -2.1152]
    known += [0.3223, -1.2633, 0.3500, 0.3081, 0.1198, 1.2377, 1.1168, -0.2473]
    # Half of the last printed digit.
    np.testing.assert_allclose(
        _core.NoiseStream.torch([0]).draw(1, 16)[0], known, rtol=0, atol=5e-5
    )


@pytest.mark.parametrize("isa", _core.supported_isas())
def test_every_isa_gives_the_golden_bits(isa):
    """In a process of its own, because the choice of kernels is made once."""
    series = GOLDEN["series"][2]
    program = (
        "import hashlib, json, sys\n"
        "from textopia_fast import _core\n"
        "seed, counts = json.loads(sys.argv[1])\n"
        "stream = _core.NoiseStream.torch([seed])\n"
        "sums = [hashlib.sha256(stream.draw(1, n).tobytes()).hexdigest() for n in counts]\n"
        "print(json.dumps([_core.active_isa(), sums]))\n"
    )
    arguments = json.dumps([series["seed"], [draw["count"] for draw in series["draws"]]])
    done = subprocess.run(
        [sys.executable, "-c", program, arguments],
        env={**os.environ, "TEXTOPIA_FORCE_ISA": isa},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [isa, [draw["sha256"] for draw in series["draws"]]]


SIZES = [1, 2, 15, 16, 17, 31, 32, 47, 100, 623, 624, 625, 2495, 2496, 2497, 16384, 65539]


def torch_with_avx2():
    torch = pytest.importorskip("torch")
    if "avx2" not in _core.supported_isas():
        pytest.skip("torch's last bits differ on a CPU without AVX2")
    return torch


@pytest.mark.parametrize("seed", [0, 1, 123456789, 2**31, 2**32 - 1, 2**32, 2**40 + 3, 2**63 - 1])
def test_live_torch_in_random_order_of_sizes(seed):
    torch = torch_with_avx2()
    generator = torch.Generator().manual_seed(seed)
    stream = _core.NoiseStream.torch([seed])
    for count in np.random.default_rng(seed).permutation(SIZES * 2):
        expected = torch.randn(int(count), generator=generator).numpy()
        assert same_bits(stream.draw(1, int(count))[0], expected), count


def test_live_torch_millions_of_values():
    torch = torch_with_avx2()
    count = 3_000_000
    expected = torch.randn(count, generator=torch.Generator().manual_seed(77)).numpy()
    assert same_bits(_core.NoiseStream.torch([77]).draw(1, count)[0], expected)


@pytest.mark.parametrize("shape", [(3, 4, 8, 8), (5, 1, 1, 3), (2, 1, 3, 3)])
def test_a_shared_generator_draws_the_batch_at_once(shape):
    torch = torch_with_avx2()
    generator = torch.Generator().manual_seed(9)
    stream = _core.NoiseStream.torch([9], shared=True)
    for _ in range(3):
        expected = torch.randn(shape, generator=generator).numpy().reshape(shape[0], -1)
        assert same_bits(stream.draw(*expected.shape), expected)


@pytest.mark.parametrize("count", [5, 16, 50])
def test_an_image_of_a_batch_is_the_image_made_alone(count):
    seeds = [3, 99, 3, 2**33]
    together = _core.NoiseStream.torch(seeds)
    alone = [_core.NoiseStream.torch([seed]) for seed in seeds]
    for _ in range(3):
        batch = together.draw(len(seeds), count)
        for row, stream in zip(batch, alone, strict=True):
            assert same_bits(row, stream.draw(1, count)[0])


def test_only_the_low_half_of_a_seed_counts_as_in_torch():
    low, high = (_core.NoiseStream.torch([seed]).draw(1, 40) for seed in (5, 5 + 2**32))
    assert same_bits(low, high)


def test_wrong_seeds_and_batches():
    make = _core.NoiseStream.torch
    with pytest.raises(errors.InvalidRequestError, match="no seed"):
        make([])
    with pytest.raises(errors.InvalidRequestError, match="2 seeds"):
        make([1, 2], shared=True)
    with pytest.raises(errors.InvalidRequestError, match=r"3 images .* 2 seeds"):
        make([1, 2]).draw(3, 16)


def test_an_empty_draw_takes_nothing():
    stream = _core.NoiseStream.torch([4])
    assert stream.draw(1, 0).shape == (1, 0)
    assert same_bits(stream.draw(1, 16), _core.NoiseStream.torch([4]).draw(1, 16))
