"""Gaussian mixtures, whose smoothed score is known exactly, in NumPy and as an ONNX graph.

For p = sum_k w_k N(m_k, S_k) the density smoothed at noise level sigma is the same mixture with
covariances S_k + sigma^2 I, so moments and score at every sigma are closed formulas.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SHAPE_NAMES = ("batch", "channels", "height", "width")


@dataclass(frozen=True, eq=False)
class Mixture:
    """weights [K], means [K, d], covariances [K, d, d]; float64."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    @property
    def dimension(self) -> int:
        return self.means.shape[1]

    def smoothed(self, sigma: float) -> Mixture:
        noise = sigma**2 * np.eye(self.dimension)
        return Mixture(self.weights, self.means, self.covariances + noise)

    def mean(self) -> np.ndarray:
        return self.weights @ self.means

    def covariance(self) -> np.ndarray:
        away = self.means - self.mean()
        return np.einsum("k,kij->ij", self.weights, self.covariances) + np.einsum(
            "k,ki,kj->ij", self.weights, away, away
        )

    def log_densities(self, x: np.ndarray) -> np.ndarray:
        """log(weight * density) of each component up to one constant: [N, K] for x [N, d]."""
        away = x[:, None] - self.means
        precision = np.linalg.inv(self.covariances)
        exponent = -0.5 * np.einsum("nki,kij,nkj->nk", away, precision, away, optimize=True)
        return exponent + np.log(self.weights) - 0.5 * np.linalg.slogdet(self.covariances)[1]

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """log p up to a constant: [N] for x [N, d]."""
        return np.logaddexp.reduce(self.log_densities(x), axis=1)

    def responsibilities(self, x: np.ndarray) -> np.ndarray:
        """P(component | x): [N, K] for x [N, d]. Their mean under the mixture is `weights`."""
        parts = self.log_densities(x)
        return np.exp(parts - np.logaddexp.reduce(parts, axis=1, keepdims=True))

    def score(self, x: np.ndarray) -> np.ndarray:
        """grad log p at x [N, d]."""
        pull = np.einsum("kij,nkj->nki", np.linalg.inv(self.covariances), self.means - x[:, None])
        return np.einsum("nk,nki->ni", self.responsibilities(x), pull)

    def draw(self, count: int, seed: int) -> np.ndarray:
        """Exact samples [count, d]."""
        rng = np.random.default_rng(seed)
        component = rng.choice(len(self.weights), count, p=self.weights)
        root = np.linalg.cholesky(self.covariances)[component]
        normal = rng.standard_normal((count, self.dimension))
        return self.means[component] + np.einsum("nij,nj->ni", root, normal)


def graph(mixture: Mixture, shape: tuple[int, int, int], prediction: str = "score") -> bytes:
    """The network that knows the mixture: x float32 [B, *shape] and sigma float32 [] in, one out.

    prediction: "score" of x itself; "sample" (the clean estimate) or "epsilon", both of the input
    x / sqrt(1 + sigma^2), which is how such networks are called.
    """
    eigenvalues, q = np.linalg.eigh(mixture.covariances)  # [K, d], [K, d, d]
    k, d = mixture.means.shape
    constants = {
        "flat": np.array([-1, d], np.int64),
        "by_component": np.array([-1, k, d], np.int64),
        "side_by_side": np.array([-1, k * d], np.int64),
        "full": np.array([-1, *shape], np.int64),
        "last": np.array([2], np.int64),
        "q": q.transpose(1, 0, 2).reshape(d, k * d).astype(np.float32),
        "q_back": q.transpose(0, 2, 1).reshape(k * d, d).astype(np.float32),
        "means": np.einsum("kij,ki->kj", q, mixture.means)[None].astype(np.float32),
        "eigenvalues": eigenvalues[None].astype(np.float32),
        "log_weights": np.log(mixture.weights).reshape(1, k, 1).astype(np.float32),
        "half": np.float32(0.5),
    }
    nodes: list[onnx.NodeProto] = []

    def add(kind: str, output: str, *inputs: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, list(inputs), [output], name=output, **attributes))
        return output

    add("Mul", "sigma_squared", "sigma", "sigma")
    noisy = "x"
    if prediction != "score":
        constants["one"] = np.float32(1.0)
        add("Sqrt", "unscale", add("Add", "one_more", "sigma_squared", "one"))
        noisy = add("Mul", "noisy", "x", "unscale")
    # Coordinates along each component's own axes, where its covariance is diagonal: [B, K, d].
    add("MatMul", "rotated", add("Reshape", "row", noisy, "flat"), "q")
    add("Sub", "pull", "means", add("Reshape", "y", "rotated", "by_component"))
    add("Add", "variances", "eigenvalues", "sigma_squared")
    add("Div", "scaled_pull", "pull", "variances")
    add("Mul", "squares", "pull", "scaled_pull")
    add("Add", "terms", "squares", add("Log", "log_variances", "variances"))
    add("ReduceSum", "twice", "terms", "last", keepdims=1)
    add("Sub", "logits", "log_weights", add("Mul", "exponents", "twice", "half"))
    add("Softmax", "odds", "logits", axis=1)
    add("Mul", "weighted", "scaled_pull", "odds")
    # Back to the axes of x and summed over the components, in one product.
    add("MatMul", "total", add("Reshape", "sides", "weighted", "side_by_side"), "q_back")
    score = add("Reshape", "score" if prediction == "score" else "gradient", "total", "full")
    if prediction == "sample":
        add("Add", "sample_out", noisy, add("Mul", "shift", score, "sigma_squared"))
    elif prediction == "epsilon":
        add("Neg", "sample_out", add("Mul", "scaled", score, "sigma"))
    output = nodes[-1].output[0]
    sizes = [SHAPE_NAMES[0], *shape]
    made = helper.make_model(
        helper.make_graph(
            nodes,
            "gaussian_mixture",
            [
                helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes),
                helper.make_tensor_value_info("sigma", TensorProto.FLOAT, []),
            ],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, sizes)],
            [numpy_helper.from_array(np.asarray(v), name) for name, v in constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


def _rotated(angle: float, variances: tuple[float, float]) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    q = np.array([[c, -s], [s, c]])
    return q @ np.diag(variances) @ q.T


# Three overlapping ellipses: unequal weights, tilted covariances.
PLANE = Mixture(
    weights=np.array([0.5, 0.3, 0.2]),
    means=np.array([[-1.5, 0.5], [1.2, 1.0], [0.3, -1.6]]),
    covariances=np.stack(
        [_rotated(0.5, (0.5, 0.15)), _rotated(-0.9, (0.4, 0.2)), _rotated(1.4, (0.3, 0.12))]
    ),
)


def _space() -> Mixture:
    rng = np.random.default_rng(5)
    roots = rng.standard_normal((2, 4, 4)) * 0.2
    covariances = roots @ roots.transpose(0, 2, 1) + 0.15 * np.eye(4)
    means = np.array([[0.8, -0.6, 0.7, -0.4], [-0.9, 0.5, -0.6, 0.6]])
    return Mixture(np.array([0.35, 0.65]), means, covariances)


# Four dimensions, to be laid out as latents of shape [1, 2, 2].
SPACE = _space()
