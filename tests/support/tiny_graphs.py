"""The four graphs of the tiny model directory: real operators, fixed random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LATENT_CHANNELS = 4
CHANNELS = 8
WIDTH = 16
"""Width of the text embedding (`cross_attention_dim`)."""
MAX_LENGTH = 77
LATENT_SIZE = 8
SCALE_FACTOR = 8


def save_graph(model: onnx.ModelProto, path: Path, *, external_data: bool = False) -> None:
    """Writes a graph; with `external_data` its weights go to `model.onnx_data` beside it."""
    path.unlink(missing_ok=True)
    (path.parent / "model.onnx_data").unlink(missing_ok=True)
    if external_data:
        onnx.save_model(
            model,
            str(path),
            save_as_external_data=True,
            location="model.onnx_data",
            size_threshold=64,
        )
    else:
        onnx.save_model(model, str(path))


class GraphBuilder:
    """Collects nodes and weights; every method that adds a node returns the name of its output."""

    def __init__(self, rng: np.random.Generator, real: str) -> None:
        self.rng = rng
        self.real = real
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def constant(self, value: Any, name: str, dtype: str | None = None) -> str:
        array = np.asarray(value, dtype=dtype or self.real)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, shape: tuple[int, ...], name: str, scale: float | None = None) -> str:
        """Normal weights whose default scale keeps the size of activations."""
        fan_in = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
        value = self.rng.standard_normal(shape) * (scale or fan_in**-0.5)
        return self.constant(value, name)

    def op(self, kind: str, *inputs: str, out: str | None = None, **attributes: Any) -> str:
        out = out or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(kind, list(inputs), [out], name=f"/{out}/{kind}", **attributes)
        )
        return out

    def silu(self, x: str) -> str:
        return self.op("Mul", x, self.op("Sigmoid", x))

    def conv(self, x: str, c_in: int, c_out: int, k: int, name: str, stride: int = 1) -> str:
        weight = self.weight((c_out, c_in, k, k), f"{name}.weight")
        bias = self.weight((c_out,), f"{name}.bias", 0.1)
        pad = (k - 1) // 2 if stride == 1 else 0
        return self.op(
            "Conv", x, weight, bias, kernel_shape=[k, k], pads=[pad] * 4, strides=[stride] * 2
        )

    def model(self, name: str, inputs: list[Any], outputs: list[Any]) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.weights)
        opset = helper.make_opsetid("", 18)
        model = helper.make_model(
            graph, opset_imports=[opset], producer_name="tiny_directory", ir_version=9
        )
        onnx.checker.check_model(model)
        return model


def value_info(name: str, dtype: str, shape: list[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(
        name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape
    )


def text_encoder(
    rng: np.random.Generator, vocab: int, ids_dtype: str, real: str
) -> onnx.ModelProto:
    """input_ids [batch, 77] -> last_hidden_state [batch, 77, WIDTH] and its mean."""
    g = GraphBuilder(rng, real)
    tokens = g.op("Gather", g.weight((vocab, WIDTH), "token_embedding", 1.0), "input_ids")
    x = g.op("Add", tokens, g.weight((1, MAX_LENGTH, WIDTH), "position_embedding", 0.3))
    mixed = g.op("MatMul", g.weight((MAX_LENGTH, MAX_LENGTH), "mixer"), x)
    x = g.op("Add", x, g.op("MatMul", mixed, g.weight((WIDTH, WIDTH), "projection")))
    g.op("Tanh", x, out="last_hidden_state")
    axis = g.constant([1], "axis", "int64")
    g.op("ReduceMean", "last_hidden_state", axis, out="pooler_output", keepdims=0)
    return g.model(
        "text_encoder",
        [value_info("input_ids", ids_dtype, ["batch_size", "sequence_length"])],
        [
            value_info("last_hidden_state", real, ["batch_size", "sequence_length", WIDTH]),
            value_info("pooler_output", real, ["batch_size", WIDTH]),
        ],
    )


def unet(
    rng: np.random.Generator,
    timestep: str,
    timestep_dtype: str,
    real: str,
    time_cond_dim: int | None = None,
) -> onnx.ModelProto:
    """sample, timestep, encoder_hidden_states (, timestep_cond) -> out_sample."""
    g = GraphBuilder(rng, real)
    onnx_real = helper.np_dtype_to_tensor_dtype(np.dtype(real))

    # Time embedding, [1 or batch, CHANNELS, 1, 1]. The angles need float32: half wraps them.
    t = g.op("Reshape", "timestep", g.constant([-1, 1], "column", "int64"))
    t = g.op("Cast", t, to=TensorProto.FLOAT)
    frequencies = 1000.0 ** (-np.arange(4)[None, :] / 3)
    angles = g.op("Mul", t, g.constant(frequencies, "frequencies", "float32"))
    t = g.op("Concat", g.op("Cos", angles), g.op("Sin", angles), axis=-1)
    t = g.op("MatMul", g.op("Cast", t, to=onnx_real), g.weight((8, CHANNELS), "time.weight"))
    if time_cond_dim is not None:
        t = g.op(
            "Add",
            t,
            g.op("MatMul", "timestep_cond", g.weight((time_cond_dim, CHANNELS), "cond.weight")),
        )
    t = g.op("Unsqueeze", g.silu(t), g.constant([2, 3], "last_axes", "int64"))

    x = g.conv("sample", LATENT_CHANNELS, CHANNELS, 3, "conv_in")
    hidden = g.silu(g.op("Add", x, t))

    # Cross-attention from the pixels to the text, one head.
    flat = g.op("Reshape", hidden, g.constant([0, CHANNELS, -1], "flat", "int64"))
    q = g.op(
        "MatMul",
        g.op("Transpose", flat, perm=[0, 2, 1]),
        g.weight((CHANNELS, WIDTH), "to_q.weight"),
    )
    k = g.op("MatMul", "encoder_hidden_states", g.weight((WIDTH, WIDTH), "to_k.weight"))
    v = g.op("MatMul", "encoder_hidden_states", g.weight((WIDTH, CHANNELS), "to_v.weight"))
    scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 2, 1]))
    weights = g.op("Softmax", g.op("Mul", scores, g.constant(WIDTH**-0.5, "scale")), axis=-1)
    attended = g.op("Transpose", g.op("MatMul", weights, v), perm=[0, 2, 1])
    attended = g.op("Reshape", attended, g.op("Shape", hidden))

    hidden = g.op("Add", hidden, attended)
    skip = g.op("Mul", "sample", g.constant(0.2, "skip"))
    g.op(
        "Add",
        g.op("Tanh", g.conv(hidden, CHANNELS, LATENT_CHANNELS, 3, "conv_out")),
        skip,
        out="out_sample",
    )
    forms: dict[str, list[int | str]] = {"scalar": [], "steps": ["steps"], "batch": ["batch_size"]}
    inputs = [
        value_info("sample", real, ["batch_size", LATENT_CHANNELS, "height", "width"]),
        value_info("timestep", timestep_dtype, forms[timestep]),
        value_info("encoder_hidden_states", real, ["batch_size", "sequence_length", WIDTH]),
    ]
    if time_cond_dim is not None:
        inputs.append(value_info("timestep_cond", real, ["batch_size", time_cond_dim]))
    return g.model(
        "unet",
        inputs,
        [value_info("out_sample", real, ["batch_size", LATENT_CHANNELS, "height", "width"])],
    )


def vae_decoder(rng: np.random.Generator, real: str) -> onnx.ModelProto:
    """latent_sample [batch, 4, h, w] -> sample [batch, 3, 8 h, 8 w], in about [-1, 1]."""
    g = GraphBuilder(rng, real)
    x = g.silu(g.conv("latent_sample", LATENT_CHANNELS, CHANNELS, 3, "conv_in"))
    up = g.weight((CHANNELS, CHANNELS, 4, 4), "up.weight", 0.3)
    x = g.op("ConvTranspose", x, up, kernel_shape=[4, 4], strides=[4, 4])
    scales = g.constant([1, 1, 2, 2], "scales", "float32")
    x = g.op("Resize", g.silu(x), "", scales, mode="nearest", nearest_mode="floor",
             coordinate_transformation_mode="asymmetric")  # fmt: skip
    x = g.op("Tanh", g.conv(x, CHANNELS, 3, 3, "conv_out"))
    g.op("Mul", x, g.constant(1.1, "gain"), out="sample")
    return g.model(
        "vae_decoder",
        [
            value_info(
                "latent_sample",
                real,
                ["batch_size", LATENT_CHANNELS, "latent_height", "latent_width"],
            )
        ],
        [value_info("sample", real, ["batch_size", 3, "height", "width"])],
    )


def vae_encoder(rng: np.random.Generator, real: str, output: str) -> onnx.ModelProto:
    """sample [batch, 3, H, W] -> latent_parameters [batch, 8, H/8, W/8], latent_sample with 4."""
    g = GraphBuilder(rng, real)
    channels = 2 * LATENT_CHANNELS if output == "latent_parameters" else LATENT_CHANNELS
    x = g.silu(g.conv("sample", 3, CHANNELS, SCALE_FACTOR, "conv_in", stride=SCALE_FACTOR))
    weight = g.weight((channels, CHANNELS, 1, 1), "conv_out.weight")
    g.op("Conv", x, weight, out=output, kernel_shape=[1, 1])
    return g.model(
        "vae_encoder",
        [value_info("sample", real, ["batch_size", 3, "height", "width"])],
        [value_info(output, real, ["batch_size", channels, "latent_height", "latent_width"])],
    )
