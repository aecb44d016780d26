"""The streams made of counters: against NumPy, against published numbers, and as normal numbers."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from statistics import NormalDist

import numpy as np
import pytest

from tests.rng.reference_philox import cuda_normals, philox, philox_normals
from textopia_fast import _core, errors

# float32 log, sqrt and sincos leave a few units in the last place of numbers up to 6.7.
TOLERANCE = {"rtol": 3e-6, "atol": 3e-6}

# Known answers of Random123 (the authors' kat_vectors, philox4x32 10 rounds).
KNOWN = [
    (
        "00000000 00000000 00000000 00000000",
        "00000000 00000000",
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ),
    (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]

# torch.randn((3, 4), device="cuda") after manual_seed(0), as published with stable-diffusion-webui.
CUDA_SEED_0 = [
    *(-0.92466259, -0.42534415, -2.6438457, 0.14518388, -0.12086647, -0.57972564),
    *(-0.62285122, -0.32838709, -1.07454231, -0.36314407, -1.67105067, 2.26550497),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_the_reference_has_the_known_answers(counter, key, words):
    numbers = [[int(word, 16) for word in text.split()] for text in (counter, key, words)]
    found = philox(np.array([numbers[0]], np.uint32), tuple(numbers[1]))
    assert found[0].tolist() == numbers[2]


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1, 2**32, 0x299F31D0A4093822, 2**64 - 1])
def test_philox_stream_against_the_reference(seed):
    for count in (1, 31, 32, 33, 63, 64, 65, 1000, 4096):
        stream = _core.NoiseStream.philox([seed])
        for draw in range(3):
            found = stream.draw(1, count)[0]
            np.testing.assert_allclose(found, philox_normals(seed, draw, count), **TOLERANCE)


def test_philox_does_not_depend_on_place_batch_or_size():
    seeds = [5, 2**50, 7]
    batch, alone = _core.NoiseStream.philox(seeds), _core.NoiseStream.philox([2**50])
    longer = _core.NoiseStream.philox([7, 9])
    for _ in range(4):
        rows = batch.draw(3, 200)
        assert rows[1].tobytes() == alone.draw(1, 200)[0].tobytes()
        assert rows[2].tobytes() == longer.draw(2, 777)[0, :200].tobytes()


@pytest.mark.parametrize("name", ["philox", "cuda"])
@pytest.mark.parametrize("isa", _core.supported_isas())
def test_every_isa_gives_the_same_bits(isa, name):
    program = (
        "import hashlib, sys\n"
        "from textopia_fast import _core\n"
        "stream = getattr(_core.NoiseStream, sys.argv[1])([11, 2**40])\n"
        "draws = [stream.draw(2, n).tobytes() for n in (5, 32, 96, 10001)]\n"
        "sums = [hashlib.sha256(draw).hexdigest() for draw in draws]\n"
        "print(_core.active_isa(), *sums)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, name],
        env={**os.environ, "TEXTOPIA_FORCE_ISA": isa},
        capture_output=True,
        text=True,
        check=True,
    )
    stream = getattr(_core.NoiseStream, name)([11, 2**40])
    sums = [hashlib.sha256(stream.draw(2, n).tobytes()).hexdigest() for n in (5, 32, 96, 10001)]
    assert done.stdout.split() == [isa, *sums]


def test_cuda_stream_has_the_published_values():
    # Eight digits are printed.
    found = _core.NoiseStream.cuda([0]).draw(1, 12)[0]
    np.testing.assert_allclose(found, CUDA_SEED_0, rtol=5e-8, atol=5e-9)


@pytest.mark.parametrize("seed", [0, 123, 2**32 + 1, 2**64 - 1])
def test_cuda_stream_against_the_reference(seed):
    stream = _core.NoiseStream.cuda([seed])
    for draw, count in enumerate((12, 1, 1000, 17)):
        # float64 inside, rounded once: half a unit in the last place and a little.
        found = stream.draw(1, count)[0]
        np.testing.assert_allclose(found, cuda_normals(seed, draw, count), rtol=6.1e-8, atol=1e-12)


def test_cuda_stream_rounds_once():
    """Nearly every value is the float32 nearest to the float64 formula."""
    found = _core.NoiseStream.cuda([3]).draw(1, 200_000)[0]
    nearest = cuda_normals(3, 0, 200_000).astype(np.float32)
    assert (found != nearest).sum() <= 2


def test_cuda_stream_shared_and_alone():
    shared = _core.NoiseStream.cuda([8], shared=True).draw(3, 50)
    np.testing.assert_allclose(shared.reshape(-1), cuda_normals(8, 0, 150), rtol=6.1e-8, atol=1e-12)
    rows = _core.NoiseStream.cuda([1, 8]).draw(2, 50)
    assert rows[1].tobytes() == shared[0].tobytes()


COUNT = 1 << 19


def philox_over_draws():
    stream = _core.NoiseStream.philox([2])
    return np.concatenate([stream.draw(1, 256)[0] for _ in range(COUNT // 256)])


def philox_over_seeds():
    return _core.NoiseStream.philox(list(range(2048))).draw(2048, COUNT // 2048).reshape(-1)


STREAMS = {
    "torch": lambda: _core.NoiseStream.torch([1]).draw(1, COUNT)[0],
    "philox": lambda: _core.NoiseStream.philox([1]).draw(1, COUNT)[0],
    "cuda": lambda: _core.NoiseStream.cuda([1]).draw(1, COUNT)[0],
    "philox_over_draws": philox_over_draws,
    "philox_over_seeds": philox_over_seeds,
}


@pytest.mark.parametrize("name", STREAMS)
def test_numbers_are_standard_normal(name):
    """Bounds are 4.5 standard errors (fixed seeds, so that the outcome is fixed too)."""
    x = STREAMS[name]().astype(np.float64)
    n = x.size
    assert abs(x.mean()) < 4.5 / n**0.5
    assert abs((x**2).mean() - 1) < 4.5 * (2 / n) ** 0.5
    assert abs((x**3).mean()) < 4.5 * (15 / n) ** 0.5
    assert abs((x**4).mean() - 3) < 4.5 * (96 / n) ** 0.5
    for lag in (1, 2, 8, 16, 24, 32, 256):
        assert abs((x[:-lag] * x[lag:]).mean()) < 4.5 / n**0.5, lag
        assert abs(((x[:-lag] ** 2 - 1) * (x[lag:] ** 2 - 1)).mean()) < 4.5 * 2 / n**0.5, lag


@pytest.mark.parametrize("name", STREAMS)
def test_numbers_follow_the_distribution_function(name):
    """Kolmogorov-Smirnov on a grid of 400 points; 1.95 / sqrt(n) is its 0.1 % point."""
    ordered = np.sort(STREAMS[name]())
    grid = np.linspace(-4, 4, 401)
    expected = np.array([NormalDist().cdf(point) for point in grid])
    found = np.searchsorted(ordered, grid, side="right") / ordered.size
    assert np.abs(found - expected).max() < 1.95 / ordered.size**0.5


def test_wrong_seeds_and_batches():
    for make in (_core.NoiseStream.philox, _core.NoiseStream.cuda):
        with pytest.raises(errors.InvalidRequestError, match="no seed"):
            make([])
        with pytest.raises(errors.InvalidRequestError, match=r"1 images .* 2 seeds"):
            make([1, 2]).draw(1, 4)
    with pytest.raises(errors.InvalidRequestError, match="exactly one"):
        _core.NoiseStream.cuda([1, 2], shared=True)
