"""Two-sample statistics: the energy distance, and Kolmogorov-Smirnov on projections.

In d dimensions the energy distance is, up to a factor that depends on d alone, the mean over all
directions of the one-dimensional one, 2*integral of (F - G)^2; here over DIRECTIONS fixed
directions. Kolmogorov-Smirnov looks at the same projections and at one that is not linear, the log
density of the target, which sees a wrong temperature best.
"""

from __future__ import annotations

from functools import lru_cache
from math import sqrt
from typing import NamedTuple

import numpy as np

from tests.langevin.mixture import Mixture

DIRECTIONS = 16


class Statistics(NamedTuple):
    """Each times n*m/(n + m) or its root, so that the null distributions do not depend on n, m."""

    energy: float
    ks: float
    ks_density: float

    def is_same(self) -> bool:
        """Whether all are below their critical values.

        Kolmogorov-Smirnov: 17 projections, 2*exp(-2*2.4^2) each, together below 4e-4. Energy: 400
        pairs of exact samples from the mixtures of `mixture.py` gave the quantiles 3.5 (0.99) and
        4.7 (0.999), and the tail falls tenfold per 1.3.
        """
        return self.energy < 6.0 and self.ks < 2.4 and self.ks_density < 2.4


def directions(dimension: int) -> np.ndarray:
    """[DIRECTIONS, d]: even on the half circle, else at random."""
    if dimension == 2:
        angles = np.pi * np.arange(DIRECTIONS) / DIRECTIONS
        return np.stack([np.cos(angles), np.sin(angles)], 1)
    drawn = np.random.default_rng(1).standard_normal((DIRECTIONS, dimension))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def compare(x: np.ndarray, mixture: Mixture, sigma: float) -> Statistics:
    """Statistics of x [n, d] against 4*n exact samples of the mixture smoothed at sigma."""
    n, m = len(x), 4 * len(x)
    target = mixture.smoothed(sigma)
    weight = n * m / (n + m)
    linear, densities = _exact(mixture, sigma, m)
    found = [_gaps(x @ v, e) for v, e in zip(directions(x.shape[1]), linear, strict=True)]
    _, density = _gaps(target.log_density(x), densities)
    energy = weight * float(np.mean([e for e, _ in found]))
    return Statistics(energy, sqrt(weight) * max(d for _, d in found), sqrt(weight) * density)


@lru_cache(maxsize=16)
def _exact(mixture: Mixture, sigma: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Sorted projections [DIRECTIONS, count] and log densities [count] of exact samples."""
    target = mixture.smoothed(sigma)
    samples = target.draw(count, seed=99)
    linear = np.sort(directions(mixture.dimension) @ samples.T)
    return linear, np.sort(target.log_density(samples))


def _gaps(x: np.ndarray, exact: np.ndarray) -> tuple[float, float]:
    """(2*integral of (F - G)^2 in units of the reference's spread, sup |F - G|)."""
    points = np.concatenate([np.sort(x), exact]) / exact.std()
    order = np.argsort(points, kind="stable")  # merges what is sorted
    gap = np.cumsum(np.where(order < len(x), 1 / len(x), -1 / len(exact)))[:-1]
    return 2 * float(np.sum(gap**2 * np.diff(points[order]))), float(np.abs(gap).max())
