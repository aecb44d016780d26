"""Runs that are replayed as CUDA graphs: fixed addresses, one number for each binding, one network
for requests of the same shapes. The emulated GPU's provider captures nothing; the rest is as on a
real one. tests/cuda_provider has the provider itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import textopia_fast as tx
from tests.cuda.test_loop_cuda import TOLERANCE, denoisers
from tests.support.fake_cuda import FakeCuda
from tests.support.networks import tanh_network
from tests.test_loop import contexts, program_of, random_latents
from textopia_fast.cuda_options import provider_options
from textopia_fast.errors import ConfigurationError, DeviceLostError

CHANNELS, TOKENS = 32, 5


@pytest.fixture
def fake() -> FakeCuda:
    return FakeCuda()


def sample(denoiser: tx.Denoiser, steps: int = 4, batch: int = 2, guidance: float = 3.0):
    positive, negative = contexts(batch)
    return tx.sample(
        denoiser,
        random_latents(batch),
        program_of("heun", steps),
        {"context": positive},
        {"context": negative},
        guidance=guidance,
    )


def test_requests_of_one_shape_share_addresses(fake):
    on_cpu, on_gpu = denoisers(fake, cuda_graphs=True)
    assert on_gpu.session.cuda_graphs == "on"
    first, kept = sample(on_gpu), fake.live()["memory"]
    fake.clear()
    np.testing.assert_array_equal(sample(on_gpu), first)
    again = fake.names().count("cuMemAlloc_v2")
    np.testing.assert_allclose(first, sample(on_cpu), rtol=0, atol=TOLERANCE * np.abs(first).max())
    assert fake.live()["memory"] == kept
    fake.clear()
    sample(on_gpu, batch=3)  # another shape: the old network goes
    assert fake.names().count("cuMemAlloc_v2") == again + kept
    assert fake.live()["memory"] == kept


def test_a_request_has_its_own_conditioning_and_guidance(fake):
    on_cpu, on_gpu = denoisers(fake, cuda_graphs=True)
    sample(on_gpu)
    positive, negative = contexts(2)
    for factor, guidance in ((2.0, 3.0), (1.0, 1.0), (3.0, 5.0)):
        given = [
            tx.sample(
                denoiser,
                random_latents(2),
                program_of("euler", 3),
                {"context": factor * positive},
                {"context": negative},
                guidance=guidance,
            )
            for denoiser in (on_cpu, on_gpu)
        ]
        tolerance = TOLERANCE * np.abs(given[0]).max()
        np.testing.assert_allclose(given[1], given[0], rtol=0, atol=tolerance)


def test_the_end_of_a_denoiser_releases_its_network(fake):
    denoiser = denoisers(fake, cuda_graphs=True)[1]
    sample(denoiser)
    assert fake.live()["memory"] > 0
    del denoiser
    assert fake.live() == {}


def test_a_request_that_fails_leaves_no_network(fake):
    denoiser = denoisers(fake, cuda_graphs=True)[1]
    good = sample(denoiser)
    fake.fail("cuLaunchKernel", 2, 1)
    with pytest.raises(tx.TextopiaError, match="CUDA_ERROR_FAKE"):
        sample(denoiser)
    assert "memory" not in fake.live()
    np.testing.assert_array_equal(sample(denoiser), good)
    fake.fail("cuLaunchKernel", 2, 719)
    with pytest.raises(DeviceLostError):
        sample(denoiser)


def test_threads_share_a_network(fake):
    """What one thread has captured others run without; they take turns."""
    denoiser = denoisers(fake, cuda_graphs=True)[1]
    alone = sample(denoiser)
    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(lambda _: sample(denoiser), range(6)):
            np.testing.assert_array_equal(found, alone)


def test_the_switch(fake):
    gpu = fake.gpu()
    for asked, said in ((True, "on"), (False, "off")):
        denoiser = tx.Denoiser(tanh_network(), device=gpu, cuda_graphs=asked)
        assert denoiser.session.cuda_graphs == said
    assert tx.Denoiser(tanh_network()).session.cuda_graphs == "off"  # on the CPU


def test_options_of_the_provider():
    assert "prefer_nhwc" not in provider_options()
    options = provider_options(
        is_compiled=True, changes={"use_tf32": "1", "tunable_op_enable": "1"}
    )
    assert options["prefer_nhwc"] == options["use_tf32"] == options["tunable_op_enable"] == "1"
    with pytest.raises(ConfigurationError, match="other than device_id"):
        provider_options(changes={"enable_cuda_graph": "1"})
    with pytest.raises(ConfigurationError, match="are strings"):
        provider_options(changes={"use_tf32": 1})


def small_unet(element: int = TensorProto.FLOAT) -> bytes:
    """NHWC inside, with each of our operators once: sample [rows, 4, h, w], timestep, context
    [rows, T, C], all of one type."""
    rng = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {
        "in": rng.standard_normal((4, CHANNELS)) * 0.3,
        "out": rng.standard_normal((CHANNELS, 4)) * 0.1,
        "kv": rng.standard_normal((CHANNELS, 2 * CHANNELS)) * 0.2,
        "up": rng.standard_normal((CHANNELS, 2 * CHANNELS)) * 0.2,
        "time": rng.standard_normal((1, CHANNELS)) * 1e-3,
        "one": np.ones(CHANNELS),
        "zero": np.zeros(CHANNELS),
    }
    numpy_type = {TensorProto.FLOAT: np.float32, TensorProto.FLOAT16: np.float16}[element]
    held = [
        numpy_helper.from_array(value.astype(np.float32 if value.ndim == 1 else numpy_type), name)
        for name, value in weights.items()
    ]
    shapes = {"tokens": [0, -1, CHANNELS], "flat": [-1, 1]}
    held += [numpy_helper.from_array(np.array(v, np.int64), name) for name, v in shapes.items()]

    def own(op, inputs, output, **attributes):
        return helper.make_node(op, inputs, [output], domain="ai.textopia", **attributes)

    node = helper.make_node
    nodes = [
        node("Transpose", ["sample"], ["nhwc"], perm=[0, 2, 3, 1]),
        node("MatMul", ["nhwc", "in"], ["h0"]),
        node("Reshape", ["timestep", "flat"], ["t"]),
        node("Cast", ["t"], ["t_real"], to=element),
        node("MatMul", ["t_real", "time"], ["bias"]),
        own("GroupNorm", ["h0", "one", "zero", "bias"], "h1", groups=8, activation="silu"),
        node("Reshape", ["h1", "tokens"], ["h2"]),
        own("LayerNorm", ["h2", "one", "zero"], "h3"),
        node("MatMul", ["context", "kv"], ["kv_rows"]),
        own("Attention", ["h3", "kv_rows"], "h4", heads=2),
        node("MatMul", ["h4", "up"], ["h5"]),
        own("Geglu", ["h5"], "h6"),
        node("Add", ["h2", "h6"], ["h7"]),
        node("Shape", ["h1"], ["image"]),
        node("Reshape", ["h7", "image"], ["h8"]),
        node("MatMul", ["h8", "out"], ["h9"]),
        node("Transpose", ["h9"], ["out_sample"], perm=[0, 3, 1, 2]),
    ]
    info = helper.make_tensor_value_info
    inputs = [
        info("sample", element, ["rows", 4, "h", "w"]),
        info("timestep", TensorProto.FLOAT, []),
        info("context", element, ["rows", "T", CHANNELS]),
    ]
    outputs = [info("out_sample", element, ["rows", 4, "h", "w"])]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.textopia", 1)]
    made = helper.make_graph(nodes, "small_unet", inputs, outputs, held)
    return helper.make_model(made, opset_imports=opsets, ir_version=9).SerializeToString()


@pytest.mark.parametrize(("element", "dtype"), [(1, "fp32"), (10, "fp16")])
def test_20_steps_of_a_network_with_our_operators(fake, element, dtype):
    """Per step one run of the graph, which launches each operator of ours, and one COMBINE; after
    the first step nothing is allocated, loaded or waited for."""
    denoiser = tx.Denoiser(small_unet(element), device=fake.gpu())
    rng = np.random.default_rng(1)
    real = np.float32 if dtype == "fp32" else np.float16
    text = rng.standard_normal((1, TOKENS, CHANNELS)).astype(real)
    given = {"context": text}

    def run() -> np.ndarray:
        return tx.sample(
            denoiser, random_latents(2), program_of("euler", 20), given, given, guidance=2.0
        )

    first = run()
    assert np.isfinite(first).all()
    fake.clear()
    np.testing.assert_array_equal(run(), first)
    calls = [call for call in fake.calls() if not call.startswith("cuCtx")]
    launched = [" ".join(call.split(" ")[:2]) for call in calls]
    begin = launched.index("cuLaunchKernel combine")
    end = len(launched) - launched[::-1].index("cuLaunchKernel combine")
    graph = ["group_norm", "group_norm", "layer_norm", "attention", "geglu"]
    step = [f"cuLaunchKernel {kernel}" for kernel in [*graph, "combine"]]
    assert launched[begin:end] == ["cuLaunchKernel combine", *step * 20]
    assert f"cuLaunchKernel group_norm {dtype} w4_silu_bias 1,32,1 64,1,1 0" in calls
    assert f"cuLaunchKernel attention {dtype} d16_short 1,8,1 64,1,1 0" in calls
