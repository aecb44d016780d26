"""Our operators on a GPU: the sessions launch the right kernels with the right grids and strides.
The fake driver computes them, ONNX Runtime's CPU provider stands for the CUDA one."""

from __future__ import annotations

import gc
import os

import numpy as np
import pytest

from tests.reference import fused_ops
from tests.support.fake_cuda import FakeCuda, graph_images, graph_kernels, image
from tests.support.gpu_ops import assert_rounded, run, session, stored, valued
from textopia_fast import _core
from textopia_fast.errors import (
    ConfigurationError,
    ExecutionError,
    ForkedProcessError,
    ModelFormatError,
    UnsupportedModelError,
)

DTYPES = ("float16", "bfloat16", "float32")


@pytest.fixture
def fake() -> FakeCuda:
    return FakeCuda()


def launches(fake: FakeCuda) -> list[str]:
    """ "layer_norm fp16 w512_any 5,1,1" of each launch."""
    calls = [call.split(" ") for call in fake.calls() if call.startswith("cuLaunchKernel ")]
    return [" ".join(words[1:-2]) for words in calls]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape, np.float32)


def affine(channels: int) -> dict[str, np.ndarray]:
    return {"gamma": normal(channels) + 1, "beta": normal(channels + 1)[1:]}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "groups", "width"),
    [
        ((2, 5, 3, 8), 2, 4),
        ((1, 7, 20), 4, 8),
        ((3, 11, 2, 30), 3, 16),
        ((2, 13, 40), 1, 64),
        ((1, 1, 1, 130), 2, 128),
    ],
)
@pytest.mark.parametrize("activation", ["", "silu"])
@pytest.mark.parametrize("bias_rows", [None, 1, "B"])
def test_group_norm(fake, dtype, shape, groups, width, activation, bias_rows):
    x, constants = stored(normal(*shape) + 5, dtype), affine(shape[-1])
    bias = None
    if bias_rows is not None:
        rows = shape[0] if bias_rows == "B" else 1
        bias = stored(10 * normal(rows, shape[-1]), dtype)
    options = {"groups": groups, "epsilon": 1e-5, "activation": activation}
    found = run(
        fake.gpu(), "GroupNorm", {"x": x, "bias": bias}, constants, rank=len(shape), **options
    )
    exact = fused_ops.group_norm(
        valued(x), *constants.values(), None if bias is None else valued(bias), **options
    )
    assert_rounded(found, exact, dtype)
    suffix = "" if bias is None else "_bias"
    first, second = launches(fake)
    assert f" w{width}_moments{suffix} 1,{shape[0] * groups},1" in first
    assert f" w{width}_{activation or 'apply'}{suffix} 1,{shape[0] * groups},1" in second


@pytest.mark.parametrize("rows", [1, 4, 5, 12, 13, 40])
def test_group_norm_in_chunks(fake, rows):
    """Tiles of 4 rows, at most 3 chunks: whole tiles a chunk, and every row once."""
    tile = {"ROWS": 4, "WIDTH": 4, "CHUNKS": 3}
    kernels = [
        image("group_norm.fp32.w4_moments", **tile),
        image("group_norm.fp32.w4_apply", APPLY=1, **tile),
    ]
    x, constants = normal(2, rows, 6), affine(6)
    gpu = fake.gpu(kernels=kernels)
    found = run(gpu, "GroupNorm", {"x": x}, constants, rank=3, groups=2, epsilon=1e-3)
    exact = fused_ops.group_norm(
        x, *constants.values(), None, groups=2, epsilon=1e-3, activation=""
    )
    assert_rounded(found, exact, "float32")
    tiles = -(-rows // 4)
    chunk = -(-tiles // 3) * 4
    assert f" {-(-rows // chunk)},4,1" in launches(fake)[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "kernel"),
    [
        ((5, 16), "w512_even 5,1,1"),
        ((2, 3, 7), "w2048_any 6,1,1"),
        ((513,), "w2048_any 1,1,1"),
        ((3, 528), "w1024_even 3,1,1"),
        ((1, 2, 1, 2048), "w2048_even 2,1,1"),
    ],
)
def test_layer_norm(fake, dtype, shape, kernel):
    x, constants = stored(normal(*shape) + 3, dtype), affine(shape[-1])
    found = run(fake.gpu(), "LayerNorm", {"x": x}, constants, rank=len(shape), epsilon=1e-5)
    assert_rounded(found, fused_ops.layer_norm(valued(x), *constants.values(), epsilon=1e-5), dtype)
    assert launches(fake)[0].endswith(kernel)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "kernel"),
    [
        ((3, 32), "even 1,3,1"),
        ((2, 3, 14), "any 1,6,1"),
        ((2,), "any 1,1,1"),
        ((1, 2050), "any 2,1,1"),
    ],
)
def test_geglu(fake, dtype, shape, kernel):
    x = stored(2 * normal(*shape), dtype)
    found = run(fake.gpu(), "Geglu", {"x": x}, {}, rank=len(shape))
    value, gate = np.split(valued(x), 2, axis=-1)
    assert_rounded(found, value * fused_ops.gelu(np.float64(gate)), dtype)
    assert launches(fake)[0].endswith(kernel)


def test_more_rows_than_a_grid_has(fake):
    """Grids end at 65535 in y: rows, and images times groups or heads, go into several launches."""
    rows = 65535 + 70
    x = normal(rows, 6)
    found = run(fake.gpu(), "Geglu", {"x": x}, {}, rank=2)
    assert_rounded(found, x[:, :3] * fused_ops.gelu(np.float64(x[:, 3:])), "float32")
    assert [call.split(" ")[-1] for call in launches(fake)] == ["1,65528,1", "1,77,1"]

    fake.clear()
    x, constants = normal(40, 1, 4000), affine(4000)
    bias = normal(40, 4000)
    found = run(
        fake.gpu(), "GroupNorm", {"x": x, "bias": bias}, constants, rank=3, groups=4000, epsilon=0.5
    )
    exact = fused_ops.group_norm(
        x, *constants.values(), bias, groups=4000, epsilon=0.5, activation=""
    )
    assert_rounded(found, exact, "float32")
    grids = [call.split(" ")[-1] for call in launches(fake)]
    assert grids == ["1,64000,1"] * 4 + ["1,32000,1"] * 2

    fake.clear()
    q, mask = normal(17, 1, 4096 * 32), normal(17, 1, 1, 1)
    inputs = {"q": q, "k": None, "v": None, "mask": None}
    inputs["q"] = np.concatenate([q, q, q], axis=-1)
    inputs["mask"] = mask
    found = run(fake.gpu(), "Attention", inputs, {}, rank=3, heads=4096)
    assert_rounded(found, q, "float32")  # of one key, which the mask cannot change
    assert [call.split(" ")[-1] for call in launches(fake)] == [
        "1,32768,1",
        "1,32768,1",
        "1,4096,1",
    ]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("packing", ["apart", "kv", "qkv"])
@pytest.mark.parametrize(
    ("heads", "width", "queries", "keys", "options", "kernel"),
    [
        (2, 40, 5, 7, {}, "d40_short"),
        (4, 16, 3, 128, {}, "d16_short"),
        (1, 64, 130, 129, {}, "d64"),
        (2, 160, 2, 3, {"scale": 0.3}, "d160_short"),
        (1, 512, 3, 5, {}, "d512"),
        (1, 64, 9, 9, {"causal": 1}, "d64_causal"),
    ],
)
def test_attention(fake, dtype, packing, heads, width, queries, keys, options, kernel):
    if packing == "qkv":
        keys = queries = min(queries, keys)
        kernel = kernel if keys > 128 or "causal" in kernel or width == 512 else f"d{width}_short"
    channels = heads * width
    q, k, v = (normal(2, n, channels + i)[..., i:] for i, n in enumerate((queries, keys, keys)))
    parts = {"apart": [[q], [k], [v]], "kv": [[q], [k, v]], "qkv": [[q, k, v]]}
    given = [stored(np.concatenate(part, -1), dtype) for part in parts[packing]]
    inputs = dict(zip(("q", "k", "v"), [*given, None, None], strict=False))
    found = run(fake.gpu(), "Attention", inputs, {}, rank=3, heads=heads, **options)
    exact = fused_ops.attention(
        *(valued(stored(part, dtype)) for part in (q, k, v)),
        None,
        heads=heads,
        **{"scale": 0, "causal": 0} | options,
    )
    assert_rounded(found, exact, dtype)
    assert f" {kernel} " in launches(fake)[0]


@pytest.mark.parametrize("mask_shape", [(1, 1, 1, 7), (2, 1, 1, 7), (1, 1, 5, 7), (2, 1, 5, 7)])
def test_attention_with_a_mask(fake, mask_shape):
    q, kv = normal(2, 5, 64), normal(2, 7, 128)
    mask = np.where(normal(*mask_shape) > 0, np.float32(0), np.float32(-1e4))
    inputs = {"q": stored(q, "float16"), "kv": stored(kv, "float16"), "v": None, "mask": mask}
    found = run(fake.gpu(), "Attention", inputs, {}, rank=3, heads=2)
    exact = fused_ops.attention(
        *(valued(stored(part, "float16")) for part in (q, kv)),
        None,
        mask,
        heads=2,
        scale=0,
        causal=0,
    )
    assert_rounded(found, exact, "float16")
    assert " d32_mask 1,4,1" in launches(fake)[0]


def test_tensors_without_elements(fake):
    gpu = fake.gpu()
    empty = np.zeros((0, 3, 8), np.float16)
    for op, attributes in (("GroupNorm", {"groups": 2}), ("LayerNorm", {})):
        assert run(gpu, op, {"x": empty}, affine(8), rank=3, **attributes).shape == (0, 3, 8)
    assert run(gpu, "Geglu", {"x": empty}, {}, rank=3).shape == (0, 3, 4)
    q = np.zeros((0, 3, 64), np.float16)
    assert run(gpu, "Attention", {"q": q, "k": q, "v": q}, {}, rank=3, heads=1).shape == q.shape
    assert launches(fake) == []


HALF = np.zeros((2, 6, 32), np.float16)
QKV = {"q": HALF, "k": HALF, "v": HALF}


@pytest.mark.parametrize(
    ("op", "inputs", "constants", "attributes", "found"),
    [
        ("GroupNorm", {"x": HALF, "gamma": np.ones(32)}, {}, {"groups": 2}, "gamma has to be"),
        ("GroupNorm", {"x": HALF}, affine(512), {"groups": 2}, "up to 4, 8, 16, 32, 64, 128"),
        ("GroupNorm", {"x": HALF}, affine(32), {"groups": 9000}, "9000 groups"),
        ("LayerNorm", {"x": HALF}, affine(2049), {}, "2049 channels"),
        ("Attention", QKV, {}, {"heads": 4}, "for heads of 8 channels"),
        ("Attention", QKV, {}, {"heads": 1, "causal": 1}, "with causal"),
        ("Attention", {"q": HALF[..., :24]}, {}, {"heads": 1}, "for heads of 8 channels"),
        (
            "Attention",
            {"q": np.zeros((1, 3, 24), np.float16)}
            | {"k": HALF[:1, :, :24]}
            | {"v": HALF[:1, :, :24]},
            {},
            {"heads": 1},
            "a multiple of 16",
        ),
        (
            "Attention",
            {"q": HALF, "k": None, "v": None, "mask": np.zeros((1, 1, 1, 6), np.float32)},
            {},
            {"heads": 2, "causal": 1},
            "with causal with a mask",
        ),
    ],
)
def test_nodes_that_no_kernel_fits(fake, op, inputs, constants, attributes, found):
    """Known when the session is made, where the graph says the sizes; else at the first run."""
    gpu = fake.gpu()
    if "gamma" in inputs:
        inputs = {"x": HALF, "gamma": affine(32)["gamma"], "beta": affine(32)["beta"]}
    feeds = {name: value for name, value in inputs.items() if value is not None}

    def load_and_run(*, fixed: bool) -> None:
        made = session(gpu, op, inputs, constants, rank=3, fixed=fixed, **attributes)
        assert not fixed  # then it was refused
        made.run(feeds)

    for fixed in (True, False):
        kinds = UnsupportedModelError if fixed else (UnsupportedModelError, ExecutionError)
        with pytest.raises(kinds) as refusal:
            load_and_run(fixed=fixed)
        assert f"{op} 'node'" in str(refusal.value)
        assert found in str(refusal.value)
    assert launches(fake) == []


@pytest.mark.parametrize(
    ("op", "attributes", "found"),
    [
        ("GroupNorm", {"groups": 3}, "32 channels in 3 groups"),
        ("GroupNorm", {}, "groups"),
        ("GroupNorm", {"groups": 2, "activation": "gelu"}, "gelu"),
        ("GroupNorm", {"groups": 2, "epsilon": -1.0}, "epsilon is -1"),
        ("LayerNorm", {"epsilon": -1.0}, "epsilon is -1"),
        ("Attention", {"heads": 0}, "heads"),
        ("Attention", {"heads": 2, "causal": 2}, "causal"),
        ("Attention", {"heads": 2, "scale": -1.0}, "scale"),
    ],
)
def test_attributes_that_cannot_be(fake, op, attributes, found):
    inputs, constants = (QKV, {}) if op == "Attention" else ({"x": HALF}, affine(32))
    with pytest.raises(ModelFormatError, match=found) as refusal:
        session(fake.gpu(), op, inputs, constants, rank=3, **attributes)
    assert f"{op} 'node'" in str(refusal.value)


@pytest.mark.parametrize(
    ("op", "inputs", "constants", "found"),
    [
        ("GroupNorm", {"x": HALF[0]}, affine(32), "needed is [B, H, W, 32]"),
        ("GroupNorm", {"x": HALF[..., :16]}, affine(32), "[2,6,16]"),
        ("GroupNorm", {"x": HALF, "bias": HALF[:, 0, :16]}, affine(32), "the channel bias"),
        ("GroupNorm", {"x": HALF, "bias": np.zeros((3, 32), np.float16)}, affine(32), "[3,32]"),
        ("LayerNorm", {"x": HALF[..., :16]}, affine(32), "the last of 32"),
        ("Geglu", {"x": HALF[..., :3]}, {}, "[..., 2 * channels]"),
        ("Attention", {"q": HALF, "k": HALF[:1], "v": HALF[:1]}, {}, "K has the shape"),
        ("Attention", {"q": HALF, "k": HALF[:, :0], "v": HALF[:, :0]}, {}, "no keys"),
    ],
)
def test_sizes_that_do_not_fit(fake, op, inputs, constants, found):
    attributes = {"GroupNorm": {"groups": 2}, "Attention": {"heads": 1}}.get(op, {})
    made = session(fake.gpu(), op, inputs, constants, rank=3, **attributes)
    with pytest.raises(ExecutionError) as refusal:
        made.run(inputs)
    assert f"{op} 'node'" in str(refusal.value)
    assert found in str(refusal.value)
    assert launches(fake) == []


@pytest.mark.parametrize("missing", ["layer_norm.fp16.w2048_any", "geglu.fp16.any"])
def test_a_missing_kernel_is_found_when_the_session_is_made(fake, missing):
    kernels = [image(name, **facts) for name, facts in graph_kernels().items() if name != missing]
    op, constants = ("Geglu", {}) if "geglu" in missing else ("LayerNorm", affine(30))
    with pytest.raises((UnsupportedModelError, ConfigurationError)) as refusal:
        session(fake.gpu(kernels=kernels), op, {"x": HALF}, constants, rank=3)
    assert f"{op} 'node'" in str(refusal.value)
    assert missing.removesuffix("w2048_any") in str(refusal.value)
    facts = {"warps": 1, "shared_bytes": 0, "constants": graph_kernels()[missing]}
    broken = _core.KernelImage(missing, "other", b"cubin x\0", [8], **facts)
    with pytest.raises(ConfigurationError, match=f"{op} 'node': kernel {missing}: not usable"):
        session(fake.gpu(kernels=[*kernels, broken]), op, {"x": HALF}, constants, rank=3)


def test_a_graph_in_float32_says_that_there_are_no_such_kernels(fake):
    """As on a real GPU, whose archives have 16 bits only."""
    kernels = [i for i in graph_images() if "fp32" not in i.name]
    with pytest.raises(UnsupportedModelError, match=r"no kernel layer_norm\.fp32\.w\*_any"):
        session(fake.gpu(kernels=kernels), "LayerNorm", {"x": normal(2, 3, 8)}, affine(8), rank=3)


def test_operators_of_the_cpu_are_not_there(fake):
    with pytest.raises(UnsupportedModelError):
        session(fake.gpu(), "Linear", {"x": HALF}, {"w": normal(4, 32)}, rank=3)


def test_two_gpus_launch_their_own_kernels(fake):
    """Each session's nodes have the modules of its own GPU."""
    fake.set_device(count=2)
    names = ("geglu.fp32.any", "geglu.fp32.even")
    gpus = [
        fake.gpu(ordinal=i, kernels=[image(name, BLOCK=block) for name in names])
        for i, block in enumerate((4, 8))
    ]
    x = normal(3, 64)
    made = [session(gpu, "Geglu", {"x": x}, {}, rank=2) for gpu in gpus]
    fake.clear()
    results = [made[i].run({"x": x})["y"] for i in (0, 1, 0)]
    np.testing.assert_array_equal(results[0], results[1])
    assert [call.split(" ")[-1] for call in launches(fake)] == ["8,3,1", "4,3,1", "8,3,1"]


def test_a_session_keeps_its_gpu(fake):
    gpu = fake.gpu()
    made = session(gpu, "Geglu", {"x": HALF}, {}, rank=3)
    del gpu
    gc.collect()
    assert fake.live() == {"stream": 1, "module": 2, "context": 1}
    assert made.run({"x": HALF})["y"].shape == (2, 6, 16)
    del made
    gc.collect()
    assert fake.live() == {}


def test_every_call_of_a_run_failing_in_turn(fake):
    made = session(fake.gpu(), "GroupNorm", {"x": HALF}, affine(32), rank=3, groups=2)
    fake.clear()
    good = made.run({"x": HALF})["y"]
    calls = fake.names()
    assert calls == [
        "cuCtxPushCurrent_v2",
        "cuLaunchKernel",
        "cuLaunchKernel",
        "cuCtxPopCurrent_v2",
    ]
    for failing in range(3):
        fake.fail("*", failing, 1)
        with pytest.raises(ExecutionError, match="CUDA_ERROR_FAKE"):
            made.run({"x": HALF})
        fake.fail("", 0, 0)
        assert fake.live().get("pushed") is None
        np.testing.assert_array_equal(made.run({"x": HALF})["y"], good)


def test_a_forked_child_is_told_so(fake):
    made = session(fake.gpu(), "Geglu", {"x": HALF}, {}, rank=3)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            made.run({"x": HALF})
            found = "nothing was raised"
        except ForkedProcessError:
            found = "forked"
        except BaseException as error:  # whatever it is, the parent shall see it
            found = repr(error)
        os.write(write, found.encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 1000) == b"forked"
    os.close(read)
    os.close(write)
    assert made.run({"x": HALF})["y"].shape == (2, 6, 16)
