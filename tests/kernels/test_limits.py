"""What the graph compiler believes of the kernels is what is compiled."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

from kernels import attention, manifest

from textopia_fast.graph import gpu_kernels

SHAPES = {
    dtype: {(v.kernel, v.shape): v for v in manifest.compiled() if v.dtype == dtype}
    for dtype in ("fp16", "bf16")
}


@pytest.mark.parametrize("dtype", SHAPES)
def test_attention(dtype: str) -> None:
    names = [shape for kernel, shape in SHAPES[dtype] if kernel == "attention"]
    plain = {name for name in names if "_" not in name}
    assert plain == {f"d{width}" for width in gpu_kernels.HEAD_WIDTHS}
    masked = {name for name in names if name.endswith("_mask")}
    assert masked == {f"d{width}_mask" for width in gpu_kernels.MASKED_HEAD_WIDTHS}
    causal = {name for name in names if name.endswith("_causal")}
    assert causal == {f"d{width}_causal" for width in gpu_kernels.CAUSAL_HEAD_WIDTHS}
    assert all(
        v.aligned == attention.STRIDES for (k, _), v in SHAPES[dtype].items() if k == "attention"
    )


@pytest.mark.parametrize("dtype", SHAPES)
@pytest.mark.parametrize("width", [1, 4, 5, 8, 10, 16, 20, 30, 40, 60, 64, 80, 128])
def test_every_width_of_a_group_has_its_kernels(dtype: str, width: int) -> None:
    assert width <= gpu_kernels.MAX_GROUP
    widths = {v.constants["WIDTH"] for (k, _), v in SHAPES[dtype].items() if k == "group_norm"}
    fitting = min(w for w in widths if w >= width)
    assert fitting < 2 * width or fitting == min(widths)
    for bias in ("", "_bias"):
        for step in ("moments", "apply", "silu"):
            assert ("group_norm", f"w{fitting}_{step}{bias}") in SHAPES[dtype]
    assert max(widths) == gpu_kernels.MAX_GROUP


@pytest.mark.parametrize("dtype", SHAPES)
def test_layer_norm_and_geglu(dtype: str) -> None:
    norms = [v for (k, _), v in SHAPES[dtype].items() if k == "layer_norm" and not v.aligned]
    assert [v.constants["WIDTH"] for v in norms] == [gpu_kernels.MAX_NORM]
    assert ("geglu", "any") in SHAPES[dtype]
