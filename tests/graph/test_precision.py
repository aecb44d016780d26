"""Element types: where they are narrow, where float32, and what the border keeps."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.graph.running import editor_of, model_of, operators, run_compiled
from textopia_fast.errors import ConfigurationError
from textopia_fast.graph import packing
from textopia_fast.graph.edit import Editor, attribute
from textopia_fast.graph.folding import fold
from textopia_fast.graph.fusion import EARLY, LATE
from textopia_fast.graph.layout import to_channels_last
from textopia_fast.graph.packing import pack_weights, panel_count
from textopia_fast.graph.precision import narrow, widen

RNG = np.random.default_rng(8)
HEAD = '<ir_version: 8, opset_import: ["" : 17]>\n'
BF16, F16, F32 = ir.DataType.BFLOAT16, ir.DataType.FLOAT16, ir.DataType.FLOAT

TEXT = """
g (float[b, t, 8] x, float[b, t, 8] kv) => (float[b, t, 8] y, float[b, t, 8] z) {
    p = MatMul(x, w)
    both = Concat<axis = 2>(p, kv)
    q = MatMul(both, v)
    e = Tanh(q)
    y = MatMul(e, w)
    z = MatMul(kv, w)
}"""
STORED = {
    "w": RNG.standard_normal((8, 8), np.float32),
    "v": RNG.standard_normal((16, 8), np.float32),
}


def fused(text: str = TEXT, **stored: np.ndarray) -> Editor:
    editor = editor_of(HEAD + text, **(stored or STORED))
    for change in (fold, *EARLY, to_channels_last, *LATE):
        change(editor)
    return editor


def casts(editor: Editor) -> list[int]:
    return [attribute(node, "to") for node in editor.graph if node.op_type == "Cast"]


def types_are_sound(editor: Editor) -> None:
    """ONNX's own inference agrees with the types that the pass gave."""
    proto = ir.to_proto(model_of(editor))
    for node in editor.graph:
        if node.domain == "ai.textopia":
            kept = (2,) if node.op_type in ("Conv", "Linear", "LinearGeglu") else (1, 2)
            for index, value in enumerate(node.inputs):
                if value is not None and index != 1:
                    assert (value.dtype == F32) == (index in kept), (node, index)
    onnx.checker.check_model(proto)


def test_fused_operators_exchange_narrow_values() -> None:
    editor = fused()
    narrow(editor, BF16)
    types_are_sound(editor)
    assert operators(editor.graph).count("tx.Linear") == 4
    # In: x and kv. An island around Tanh. Out: y and z.
    assert casts(editor) == [BF16, BF16, F32, BF16, F32, F32]
    joined = next(node for node in editor.graph if node.op_type == "Concat")
    assert joined.outputs[0].dtype == BF16
    assert [value.dtype for value in (*editor.graph.inputs, *editor.graph.outputs)] == [F32] * 4


def test_what_graphs_hand_over_is_narrow() -> None:
    editor = fused()
    narrow(editor, F16, handed_over=["kv", "z"])
    types_are_sound(editor)
    assert [value.dtype for value in editor.graph.inputs] == [F32, F16]
    assert [value.dtype for value in editor.graph.outputs] == [F32, F16]
    assert casts(editor) == [F16, F32, F16, F32]


def test_float32_changes_nothing() -> None:
    editor = fused()
    before = operators(editor.graph)
    narrow(editor, F32)
    assert operators(editor.graph) == before


def test_widening_a_float16_graph() -> None:
    text = """
    g (float16[b, 4] x) => (float16[b, 4] y) {
        f = Cast<to = 1>(x)
        h = Cast<to = 10>(f)
        y = Mul(h, w)
    }"""
    weight = np.array([0.1, 1, 2, 3], np.float16)
    editor = editor_of(HEAD + text, w=weight)
    widen(editor.graph)
    fold(editor)
    assert operators(editor.graph) == ["Mul"]
    assert [value.dtype for value in (*editor.graph.inputs, *editor.graph.outputs)] == [F32, F32]
    x = np.full((1, 4), 70000, np.float32)  # beyond float16's 65,504
    result = run_compiled(model_of(editor), {"x": x})["y"]
    np.testing.assert_array_equal(result, x * weight.astype(np.float32))


# --- weights


def weights_of(editor: Editor) -> dict[str, ir.Node]:
    return {node.op_type: node for node in editor.graph if attribute(node, "weight_format")}


def test_plain_weights_are_narrowed() -> None:
    editor = fused()
    pack_weights(editor, "plain", BF16)
    node = weights_of(editor)["Linear"]
    tensor = node.inputs[1].const_value
    assert tensor.dtype == BF16
    first = next(n for n in editor.graph if n.op_type == "Linear")
    np.testing.assert_array_equal(
        first.inputs[1].const_value.numpy(), STORED["w"].T.astype(ml_dtypes.bfloat16)
    )


CONVS = """
g (float[b, 40, h, w] x) => (float[b, 33, p, q] y) {
    a = Conv<pads = [1, 1, 1, 1]>(x, k1)
    u = Resize<mode = "nearest", coordinate_transformation_mode = "asymmetric",
               nearest_mode = "floor">(a, , scales)
    b2 = Conv<pads = [1, 1, 1, 1]>(u, k2)
    y = Conv(b2, k3)
}"""


def test_every_weight_is_packed_for_what_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is called with what; the packing itself is the core's, and tested there."""
    calls: list[tuple[str, tuple[int, ...], bool]] = []

    def packer(name: str, flag: str):
        def pack(weight: np.ndarray, **options: bool) -> np.ndarray:
            assert weight.dtype == np.float32
            assert weight.flags.c_contiguous
            calls.append((name, weight.shape, options[flag]))
            taps = int(np.prod(weight.shape[1:-1])) if name == "conv" else 1
            taps = 16 if name == "conv" and options[flag] else taps
            return np.zeros(panel_count(weight.shape[0], weight.shape[-1], taps), np.uint16)

        return pack

    monkeypatch.setattr(packing._core, "pack_conv", packer("conv", "upsample"), raising=False)
    monkeypatch.setattr(packing._core, "pack_linear", packer("linear", "geglu"), raising=False)
    stored = {
        "k1": RNG.standard_normal((40, 40, 3, 3), np.float32),
        "k2": RNG.standard_normal((40, 40, 3, 3), np.float32),
        "k3": RNG.standard_normal((33, 40, 1, 1), np.float32),
        "scales": np.array([1, 1, 2, 2], np.float32),
    }
    editor = fused(CONVS, **stored)
    pack_weights(editor, "bf16_panels", BF16)
    assert calls == []  # only as it is written
    nodes = [node for node in editor.graph if node.op_type == "Conv"]
    tensors = [node.inputs[1].const_value for node in nodes]
    assert [tensor.numpy().shape for tensor in tensors] == [
        (64 * 64 * 9,),
        (64 * 64 * 16,),
        (64 * 64,),
    ]
    assert [tensor.dtype for tensor in tensors] == [ir.DataType.UINT16] * 3
    assert calls == [
        ("conv", (40, 3, 3, 40), False),
        ("conv", (40, 3, 3, 40), True),
        ("conv", (33, 1, 1, 40), False),
    ]


def test_a_core_without_packing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(packing._core, "pack_linear", raising=False)
    with pytest.raises(ConfigurationError, match="no pack_linear"):
        pack_weights(fused(), "bf16_panels", BF16)


def test_a_packing_of_another_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    short = np.zeros(7, np.uint16)
    monkeypatch.setattr(packing._core, "pack_linear", lambda w, geglu, int8: short, raising=False)
    editor = fused()
    pack_weights(editor, "bf16_panels", BF16)
    node = next(n for n in editor.graph if n.op_type == "Linear")
    with pytest.raises(ConfigurationError, match="has 7 numbers, expected are 1,024"):
        node.inputs[1].const_value.numpy()
