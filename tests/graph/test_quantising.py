"""Which layers are computed in int8, and what becomes of their nodes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from tests.graph.running import EXPORTS, editor_of
from textopia_fast.graph.compile import compile_graph
from textopia_fast.graph.edit import DOMAIN, Editor, attribute
from textopia_fast.graph.packing import pack_weights
from textopia_fast.graph.quantising import plan_int8, zero_point_of
from textopia_fast.graph.targets import find_target

RNG = np.random.default_rng(8)
HEAD = '<ir_version: 8, opset_import: ["" : 18, "ai.textopia" : 1]>\n'


def layers(*lines: str, **stored: np.ndarray) -> Editor:
    text = "\n".join(lines)
    return editor_of(f"{HEAD}g (float[b, s, c] x) => (float[b, s, n] y) {{\n{text}\n}}", **stored)


def linear(n: int, k: int, weight: np.ndarray | None = None) -> Editor:
    made = RNG.standard_normal((n, k)) if weight is None else weight
    return layers(
        f"y = ai.textopia.Linear<in_features = {k}, out_features = {n}, "
        'activation = "", weight_format = "plain">(x, w)',
        w=made.astype(np.float32),
    )


def reasons(editor: Editor) -> list[str]:
    return list(plan_int8(editor.graph, {}).kept)


@pytest.mark.parametrize(
    ("n", "k", "reason"),
    [
        (32, 128, None),
        (320, 320, None),
        (31, 320, "fewer than 32 channels"),
        (320, 31, "fewer than 32 channels"),
        (32, 127, "sums of fewer than 128 products"),
        (32, 66_311, None),
        (32, 66_312, "sums that an int32 does not hold"),
    ],
)
def test_sizes_decide(n: int, k: int, reason: str | None) -> None:
    assert reasons(linear(n, k)) == ([] if reason is None else [f"Linear: {reason}"])


def outlier() -> np.ndarray:
    """One weight of each row so large that the others fall on a few steps."""
    weight = RNG.standard_normal((40, 512))
    weight[:, 3] = 12.0
    return weight


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_weights_decide(wrong: float) -> None:
    words = ["Linear: rounding changes its weights by more than 2%"]
    assert reasons(linear(40, 512, outlier())) == words
    gaussian = RNG.standard_normal((40, 512))
    assert reasons(linear(40, 512, gaussian)) == []
    gaussian[7, 7] = wrong
    assert reasons(linear(40, 512, gaussian)) == words
    assert reasons(linear(40, 512, np.zeros((40, 512)))) == []


def test_the_reference_of_the_loss_is_the_packing() -> None:
    """2 % is what `pack_int8` really does to the numbers."""
    from textopia_fast import _core

    weight = outlier().astype(np.float32)
    panels = _core.pack_linear(weight, int8=True).reshape(2, -1)
    q = panels[:, :-256].view(np.int8).reshape(2, 8, 2, 16, 16, 4)
    q = q.transpose(0, 2, 4, 1, 3, 5).reshape(64, 512)[:40].astype(float)
    scale = panels[:, -256:-128].copy().view(np.float32).reshape(-1)[:40, None]
    assert np.linalg.norm(q * scale - weight) / np.linalg.norm(weight) > 0.02


def test_only_what_was_chosen_is_packed_in_int8() -> None:
    weight = RNG.standard_normal((320, 320)).astype(np.float32)
    attributes = 'activation = "", weight_format = "plain"'
    editor = layers(
        f"a = ai.textopia.Linear<in_features = 320, out_features = 320, {attributes}>(x, w)",
        f"y = ai.textopia.Linear<in_features = 320, out_features = 20, {attributes}>(a, v)",
        w=weight,
        v=weight[:20].copy(),
    )
    plan = plan_int8(editor.graph, {"b": 1, "s": 2, "c": 320, "n": 20})
    pack_weights(editor, "bf16_panels", ir.DataType.BFLOAT16, plan.chosen)
    found = [
        (attribute(node, "weight_format"), attribute(node, "zero_point"), weight.dtype)
        for node in editor.graph
        if (weight := node.inputs[1].const_value) is not None
    ]
    assert found == [
        ("int8_panels", 128, ir.DataType.UINT8),
        ("bf16_panels", None, ir.DataType.UINT16),
    ]
    sizes = [node.inputs[1].const_value.numpy().size for node in editor.graph]
    assert sizes == [10 * (5 * 2048 + 256), 32 * 320]
    assert plan.facts() == {
        "layers": 1,
        "share": plan.share,
        "kept": {"Linear: fewer than 32 channels": 1},
    }


def test_bytes_behind_silu_lie_above_zero() -> None:
    editor = layers(
        'a = ai.textopia.GroupNorm<groups = 8, epsilon = 0.00001, activation = "silu">(x, s, s)',
        "r = Transpose<perm = [0, 2, 1]>(a)",
        'c = ai.textopia.Linear<in_features = 64, out_features = 64, activation = "">(r, w)',
        'd = ai.textopia.Linear<in_features = 64, out_features = 64, activation = "silu">(c, w)',
        "e = ai.textopia.Linear<in_features = 64, out_features = 64, "
        'activation = "silu">(d, w, , c)',
        'y = ai.textopia.Linear<in_features = 64, out_features = 64, activation = "">(e, w)',
        w=RNG.standard_normal((64, 64)).astype(np.float32),
        s=np.ones(64, np.float32),
    )
    found = [zero_point_of(node) for node in editor.graph if node.op_type == "Linear"]
    # a residual is added behind the activation
    assert found == [24, 128, 24, 128]


@pytest.mark.parametrize("name", ["unet_17", "unet_dynamo_18", "unet_17_fp16"])
def test_a_u_net(name: str) -> None:
    compiled = compile_graph(EXPORTS / f"{name}.onnx", "unet", find_target("cpu-int8"))
    assert list(compiled.graphs) == ["body"]
    assert compiled.int8 is not None
    nodes = [node for node in compiled.graphs["body"].graph if node.domain == DOMAIN]
    formats = [attribute(node, "weight_format") for node in nodes]
    assert formats.count("int8_panels") == len(compiled.int8.chosen)
    assert formats.count("bf16_panels") == sum(compiled.int8.kept.values())
    assert "Conv: fewer than 32 channels" in compiled.int8.kept
