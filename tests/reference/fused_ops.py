"""The operators of domain `ai.textopia` in NumPy, from their definitions, for onnx's evaluator.

float32 in, float64 inside, float32 out. Weights are in the format "plain".
"""

from __future__ import annotations

import math

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

DOMAIN = "ai.textopia"

_erf = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + _erf(x / math.sqrt(2)))


ACTIVATIONS = {
    "": lambda x: x,
    "silu": lambda x: x * _sigmoid(x),
    "gelu": gelu,
    "quick_gelu": lambda x: x * _sigmoid(1.702 * x),
}


def conv(x, w, bias, time_bias, residual, *, kernel, stride, upsample, asymmetric_pad, activation):
    """x [B, H, W, Cin], w [Cout, kh, kw, Cin] -> [B, Ho, Wo, Cout]."""
    x, w = np.float64(x), np.float64(w)
    assert w.shape[1:] == (kernel, kernel, x.shape[3])
    if upsample:
        x = x.repeat(2, axis=1).repeat(2, axis=2)
    if kernel == 3:
        before = 0 if asymmetric_pad else 1
        x = np.pad(x, ((0, 0), (before, 1), (before, 1), (0, 0)))
    height = (x.shape[1] - kernel) // stride + 1
    width = (x.shape[2] - kernel) // stride + 1
    y = np.zeros((x.shape[0], height, width, w.shape[0]))
    for i in range(kernel):
        for j in range(kernel):
            tap = x[:, i : i + (height - 1) * stride + 1 : stride]
            tap = tap[:, :, j : j + (width - 1) * stride + 1 : stride]
            y += tap @ w[:, i, j].T
    y += 0 if bias is None else bias
    y += 0 if time_bias is None else time_bias[:, None, None, :]
    assert residual is None or residual.shape == y.shape
    return ACTIVATIONS[activation](y) + (0 if residual is None else residual)


def linear(x, w, bias, residual, *, activation):
    """x [..., K], w [N, K] -> [..., N]."""
    y = np.float64(x) @ np.float64(w).T + (0 if bias is None else bias)
    assert residual is None or residual.shape == y.shape
    return ACTIVATIONS[activation](y) + (0 if residual is None else residual)


def linear_geglu(x, w, bias):
    """x [..., K], w [2N, K] -> [..., N]: value * gelu(gate)."""
    value, gate = np.split(linear(x, w, bias, None, activation=""), 2, axis=-1)
    return value * gelu(gate)


def group_norm(x, gamma, beta, channel_bias=None, *, groups, epsilon, activation):
    """x [B, ..., C] + channel_bias [B or 1, C]: each group of channels of each image to mean 0 and
    variance 1."""
    y = np.float64(x).reshape(x.shape[0], -1, x.shape[-1])
    if channel_bias is not None:
        y = y + np.float64(channel_bias)[:, None]
    y = y.reshape(x.shape[0], -1, groups, x.shape[-1] // groups)
    mean = y.mean(axis=(1, 3), keepdims=True)
    variance = y.var(axis=(1, 3), keepdims=True)
    y = ((y - mean) / np.sqrt(variance + epsilon)).reshape(x.shape)
    return ACTIVATIONS[activation](y * gamma + beta)


def geglu(x):
    """x [..., 2N] -> [..., N]: value * gelu(gate)."""
    value, gate = np.split(np.float64(x), 2, axis=-1)
    return value * gelu(gate)


def layer_norm(x, gamma, beta, *, epsilon):
    """x [..., C] to mean 0 and variance 1 along C."""
    y = np.float64(x)
    mean, variance = y.mean(-1, keepdims=True), y.var(-1, keepdims=True)
    return (y - mean) / np.sqrt(variance + epsilon) * gamma + beta


def attention(q, k, v, mask, *, heads, scale, causal):
    """q [B, Sq, heads * D], k and v [B, Sk, heads * D] -> [B, Sq, heads * D]."""
    if k is None:
        q, k, v = np.split(q, 3, axis=-1)
    elif v is None:
        k, v = np.split(k, 2, axis=-1)

    def split(x):
        return np.float64(x).reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)

    q, k, v = split(q), split(k), split(v)
    logits = q @ k.transpose(0, 1, 3, 2) * (scale or 1 / math.sqrt(q.shape[-1]))
    logits = logits + (0 if mask is None else mask)
    if causal:
        logits = np.where(np.tri(*logits.shape[-2:], dtype=bool), logits, -np.inf)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    y = weights / weights.sum(axis=-1, keepdims=True) @ v
    return y.transpose(0, 2, 1, 3).reshape(y.shape[0], y.shape[2], -1)


def _operator(name, function, inputs):
    """A class for onnx's evaluator: missing inputs are None, attributes come by name."""

    def run(self, *values, **_attributes):  # those of onnx's own operator of this name come, too
        found = {a.name: getattr(self, a.name) for a in self.onnx_node.attribute}
        weight_format = found.pop("weight_format", "plain")
        assert weight_format == "plain", weight_format
        for key in ("in_features", "out_features", "in_channels", "out_channels"):
            found.pop(key, None)
        values = [None if v is None else v for v in values]
        values += [None] * (inputs - len(values))
        return (np.asarray(function(*values, **found), dtype=np.float32),)

    return type(name, (OpRun,), {"op_domain": DOMAIN, "_run": run})


OPERATORS = [
    _operator("Conv", conv, 5),
    _operator("Linear", linear, 4),
    _operator("LinearGeglu", linear_geglu, 3),
    _operator("GroupNorm", group_norm, 4),
    _operator("Geglu", geglu, 1),
    _operator("LayerNorm", layer_norm, 3),
    _operator("Attention", attention, 4),
]


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Runs a graph that may hold fused operators."""
    return ReferenceEvaluator(model, new_ops=OPERATORS).run(None, feeds)
