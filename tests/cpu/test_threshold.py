"""Dynamic thresholding: the kernel against sorting, and against torch.quantile."""

from __future__ import annotations

import numpy as np
import pytest

from tests.reference.guidance_float64 import thresholded
from textopia_fast import _core, errors

SIZES = [1, 2, 3, 17, 100, 1000, 4099, 16384]
RATIOS = [0.0, 0.1, 0.5, 0.9, 0.995, 1.0]


def rows(count: int, kind: str) -> np.ndarray:
    """float32 [3, count] with the quantiles of interest above 1."""
    rng = np.random.default_rng([count, len(kind)])
    values = rng.standard_normal((3, count)) * [[0.3], [2.0], [40.0]]
    if kind == "ties":
        values = np.round(values)
    if kind == "wide":  # every exponent, so every bucket of the selection
        values = rng.choice([-1.0, 1.0], (3, count)) * 2.0 ** rng.uniform(-40, 40, (3, count))
    return values.astype(np.float32)


@pytest.mark.parametrize("kind", ["normal", "ties", "wide"])
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("count", SIZES)
def test_against_sorting(count: int, ratio: float, kind: str) -> None:
    values = rows(count, kind)
    got = _core.threshold(values, ratio, 1e30)
    expected = thresholded(values.astype(np.float64), float(np.float32(ratio)), 1e30)
    # The place in order, ratio*(n - 1), is float32: off by 2^-24 of itself, a share of one gap.
    if kind == "wide":
        agree = np.abs(got - expected) <= 2e-3 * np.abs(expected)
        assert agree.mean() >= 1.0 - 3.0 / count
    else:
        np.testing.assert_allclose(got, expected, rtol=3e-4 if count > 1000 else 2e-6, atol=1e-7)


@pytest.mark.parametrize("kind", ["normal", "ties", "wide"])
@pytest.mark.parametrize("ratio", [*RATIOS, 0.3, 0.77, 0.999])
def test_against_torch(ratio: float, kind: str) -> None:
    torch = pytest.importorskip("torch")
    for count in SIZES:
        values = rows(count, kind)
        x = torch.from_numpy(values)
        s = torch.quantile(x.abs(), ratio, dim=1).clamp(1.0, 1e30)[:, None]
        expected = (torch.clamp(x, -s, s) / s).numpy()
        # torch's releases round the place between two values differently, and may fuse operations
        np.testing.assert_allclose(_core.threshold(values, ratio, 1e30), expected, rtol=1e-6)


def test_the_bound_is_at_least_one_and_then_at_most_high() -> None:
    values = np.array([[-8.0, 2.0, 4.0, 0.5]], np.float32)
    for high, bound in ((100.0, 8.0), (3.0, 3.0), (1.0, 1.0), (0.25, 0.25)):
        expected = values.clip(-bound, bound) / bound
        np.testing.assert_array_equal(_core.threshold(values, 1.0, high), expected)
    np.testing.assert_array_equal(_core.threshold(values, 0.0, 100.0), values.clip(-1, 1))


def test_images_alone_and_together() -> None:
    values = rows(1000, "normal")
    together = _core.threshold(values, 0.9, 50.0)
    for k in range(3):
        alone = _core.threshold(values[k : k + 1], 0.9, 50.0)
        np.testing.assert_array_equal(alone[0], together[k])


def test_nan_and_infinity_are_the_largest() -> None:
    values = np.arange(8, dtype=np.float32)[None]
    values[0, 3] = np.nan
    values[0, 5] = -np.inf
    got = _core.threshold(values, 0.5, 100.0)[0]
    assert np.isnan(got[3])
    assert np.isfinite(np.delete(got, 3)).all()
    assert np.isnan(_core.threshold(values, 1.0, 100.0)).all()


@pytest.mark.parametrize(
    ("images", "ratio"),
    [
        (np.zeros((2, 3), np.float64), 0.5),
        (np.zeros(3, np.float32), 0.5),
        (np.zeros((2, 0), np.float32), 0.5),
        (np.zeros((4, 4), np.float32)[:, ::2], 0.5),
        (np.zeros((2, 3), np.float32), 1.5),
        (np.zeros((2, 3), np.float32), float("nan")),
    ],
)
def test_bad_arguments(images: np.ndarray, ratio: float) -> None:
    with pytest.raises(errors.InvalidRequestError, match="threshold"):
        _core.threshold(images, ratio, 1.0)
