"""The references of this folder agree with each other, before anything is judged by them."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from tests.langevin.mixture import PLANE, SPACE, Mixture, graph

SHAPES = {2: (1, 1, 2), 4: (1, 2, 2)}


@pytest.mark.parametrize("mixture", [PLANE, SPACE], ids=["plane", "space"])
@pytest.mark.parametrize("sigma", [0.05, 0.7, 12.0])
def test_score_is_the_gradient_of_the_log_density(mixture: Mixture, sigma: float) -> None:
    smoothed = mixture.smoothed(sigma)
    x = smoothed.draw(20, seed=1)

    def log_density(points: np.ndarray) -> np.ndarray:
        away = points[:, None] - smoothed.means
        inverse = np.linalg.inv(smoothed.covariances)
        exponent = -0.5 * np.einsum("nki,kij,nkj->nk", away, inverse, away)
        norm = np.sqrt(np.linalg.det(2 * np.pi * smoothed.covariances))
        return np.log((smoothed.weights / norm * np.exp(exponent)).sum(1))

    step = 1e-5
    for i in range(mixture.dimension):
        shift = step * np.eye(mixture.dimension)[i]
        slope = (log_density(x + shift) - log_density(x - shift)) / (2 * step)
        np.testing.assert_allclose(smoothed.score(x)[:, i], slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("prediction", ["score", "sample", "epsilon"])
@pytest.mark.parametrize("mixture", [PLANE, SPACE], ids=["plane", "space"])
def test_graph_computes_the_score(mixture: Mixture, prediction: str) -> None:
    shape = SHAPES[mixture.dimension]
    session = onnxruntime.InferenceSession(graph(mixture, shape, prediction))
    for sigma in (0.05, 0.7, 12.0):
        x = mixture.smoothed(sigma).draw(50, seed=2)
        scale = 1.0 if prediction == "score" else 1 / np.sqrt(1 + sigma**2)
        feeds = {
            "x": (x * scale).astype(np.float32).reshape(-1, *shape),
            "sigma": np.array(sigma, np.float32),
        }
        found = session.run(None, feeds)[0].reshape(x.shape)
        score = mixture.smoothed(sigma).score(x)
        expected = {"score": score, "sample": x + sigma**2 * score, "epsilon": -sigma * score}
        # float32 inside the graph; the softmax of the odds amplifies it where components compete
        np.testing.assert_allclose(found, expected[prediction], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mixture", [PLANE, SPACE], ids=["plane", "space"])
def test_moments_are_those_of_exact_samples(mixture: Mixture) -> None:
    x = mixture.draw(200_000, seed=3)
    np.testing.assert_allclose(x.mean(0), mixture.mean(), atol=5 * 1.5 / 200_000**0.5)
    np.testing.assert_allclose(np.cov(x.T), mixture.covariance(), atol=0.02)
    np.testing.assert_allclose(mixture.responsibilities(x).mean(0), mixture.weights, atol=0.005)
