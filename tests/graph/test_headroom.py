"""float16 VAEs whose activations would not fit: the same picture from smaller numbers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.graph.running import (
    EXPORTS,
    editor_of,
    inputs_of,
    relative_error,
    run_export,
    run_rounded,
)
from textopia_fast.graph.compile import compile_graph
from textopia_fast.graph.edit import Editor
from textopia_fast.graph.folding import fold
from textopia_fast.graph.fusion import EARLY, LATE
from textopia_fast.graph.headroom import SCALE, give_headroom
from textopia_fast.graph.layout import to_channels_last
from textopia_fast.graph.targets import find_target

RNG = np.random.default_rng(3)
HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
# Two residual sums and a group norm behind them; `read` also reads the second sum.
TEXT = """
g (float[b, 8, h, w] x) => (float[b, 8, h, w] y) {
    a = Conv<pads = [1, 1, 1, 1]>(x, k1, b1)
    c = Conv<pads = [1, 1, 1, 1]>(x, k2)
    s = Add(a, c)
    d = Conv(s, k3)
    e = Add(s, d)
    shape = Constant<value_ints = [0, 4, -1]>()
    r = Reshape(e, shape)
    n = InstanceNormalization(r, one, zero)
    full = Shape(e)
    m = Reshape(n, full)
    READ
}"""
STORED = {
    "k1": RNG.standard_normal((8, 8, 3, 3), np.float32),
    "k2": RNG.standard_normal((8, 8, 3, 3), np.float32),
    "k3": RNG.standard_normal((8, 8, 1, 1), np.float32),
    "b1": RNG.standard_normal(8, np.float32),
    "one": np.ones(4, np.float32),
    "zero": np.zeros(4, np.float32),
}


def scaled(read: str) -> tuple[Editor, int]:
    editor = editor_of(HEAD + TEXT.replace("READ", read), **STORED)
    for change in (fold, *EARLY, to_channels_last, *LATE):
        change(editor)
    return editor, give_headroom(editor)


def weights(editor: Editor) -> dict[float, int]:
    """How the kernels compare with those that were given, by their size."""
    found: dict[float, int] = {}
    for node in editor.graph:
        if node.op_type == "Conv":
            size = float(np.abs(node.inputs[1].const_value.numpy()).max())
            name = {1: "k3"}.get(node.attributes["kernel"].value)
            given = [np.abs(STORED[k]).max() for k in ([name] if name else ["k1", "k2"])]
            factor = min((size / g for g in given), key=lambda f: min(abs(f - 1), abs(f - SCALE)))
            found[round(factor, 6)] = found.get(round(factor, 6), 0) + 1
    return found


def test_sums_become_smaller_and_their_norm_does_not_notice() -> None:
    editor, count = scaled("y = Identity(m)")
    assert count >= 3
    # The layers that start the sums; the third has the small sum as its input already.
    assert weights(editor) == {SCALE: 2, 1.0: 1}
    norm = next(node for node in editor.graph if node.op_type == "GroupNorm")
    assert norm.attributes["epsilon"].value == pytest.approx(1e-5 * SCALE**2, rel=1e-6)


def test_what_others_read_keeps_its_size() -> None:
    editor, count = scaled("t = Tanh(e)\n    y = Add(m, t)")
    assert weights(editor) == {1.0: 3}
    assert count == 0


@pytest.mark.parametrize("name", ["vae_decoder_17", "vae_encoder_17"])
def test_a_vae_whose_activations_do_not_fit(name: str, tmp_path) -> None:
    """Its first convolution made 1e5 times larger: beyond 65,504 from there on."""
    model = onnx.load(EXPORTS / f"{name}.onnx")
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    first = next(node.input[1] for node in model.graph.node if node.op_type == "Conv")
    array = onnx.numpy_helper.to_array(tensors[first]) * np.float32(1e5)
    tensors[first].CopyFrom(onnx.numpy_helper.from_array(array, first))
    onnx.save(model, tmp_path / "model.onnx")
    feeds = inputs_of(name, 1, 8, 8, 0)
    exact = run_export(model, feeds)[0]
    parts = compile_graph(tmp_path / "model.onnx", name[:-3], find_target("cuda-fp16"))
    found = next(iter(run_rounded(parts.graphs["model"], feeds).values()))
    assert relative_error(found, exact) < 4e-3
    with np.errstate(all="ignore"):
        plain = compile_graph(tmp_path / "model.onnx", "model", find_target("cuda-fp16"))
        overflowed = next(iter(run_rounded(plain.graphs["model"], feeds).values()))
    assert not np.isfinite(overflowed).all()
