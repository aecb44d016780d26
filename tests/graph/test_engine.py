"""Whole directories: compiled, kept, found again, and computing what the export did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.graph.running import EXPORTS, GOLDEN, run_compiled, run_export
from tests.support.tiny_directory import build_tiny_directory
from textopia_fast.cli import main
from textopia_fast.errors import ConfigurationError, UnsupportedModelError
from textopia_fast.graph import compile_directory
from textopia_fast.graph.compile import compile_graph
from textopia_fast.graph.engine import measure_coverage
from textopia_fast.graph.targets import find_target
from textopia_fast.models import open_directory

TINY = GOLDEN / "tiny_sd"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


def test_an_engine_of_a_model(cache: Path) -> None:
    written: list[tuple[str, int, int]] = []
    directory = open_directory(TINY)
    engine = compile_directory(directory, "cuda-bf16", cache, lambda *args: written.append(args))
    assert set(engine.parts) == {"unet", "text_encoder", "vae_decoder", "vae_encoder"}
    assert set(engine.parts["unet"].graphs) == {"body", "time", "prompt"}
    # Heads of 8 columns, of which half of this model's attention is, have no kernel.
    assert engine.parts["unet"].share > 0.8
    assert engine.parts["vae_decoder"].share > 0.99
    assert ("unet/body", 1) in {entry[:2] for entry in written}
    assert all(1 <= done <= total for _, done, total in written)
    files = [path for path in engine.path.rglob("*.*") if path.name != "engine.json"]
    assert engine.bytes == sum(path.stat().st_size for path in files)
    assert compile_directory(directory, "cuda-bf16", cache).path == engine.path


def test_weights_lie_at_pages_and_are_narrow(cache: Path) -> None:
    engine = compile_directory(open_directory(TINY), "cuda-bf16", cache)
    body = onnx.load(engine.parts["unet"].graphs["body"], load_external_data=False)
    offsets = [
        int(entry.value)
        for tensor in body.graph.initializer
        for entry in tensor.external_data
        if entry.key == "offset"
    ]
    assert offsets
    assert all(offset % 4096 == 0 for offset in offsets)
    types = {tensor.data_type for tensor in body.graph.initializer if tensor.external_data}
    assert types == {onnx.TensorProto.BFLOAT16}


def test_targets_have_engines_of_their_own(cache: Path) -> None:
    directory = open_directory(TINY)
    paths = {compile_directory(directory, name, cache).path for name in ("cuda-bf16", "cpu-fp32")}
    assert len(paths) == 2
    with pytest.raises(ConfigurationError, match="target: got 'tpu'"):
        compile_directory(directory, "tpu", cache)


def test_another_weight_is_another_engine(cache: Path, tmp_path: Path) -> None:
    first = build_tiny_directory(tmp_path / "a", external_data=True)
    second = build_tiny_directory(tmp_path / "b", external_data=True, seed=1)
    paths = [compile_directory(open_directory(p), "reference", cache).path for p in (first, second)]
    assert paths[0] != paths[1]
    # The same contents elsewhere are the same engine.
    third = build_tiny_directory(tmp_path / "c", external_data=True)
    assert compile_directory(open_directory(third), "reference", cache).path == paths[0]


def load(path: Path) -> ir.Model:
    return ir.load(path)


@pytest.mark.parametrize(
    "options",
    [
        {"timestep": "scalar"},
        {"timestep": "steps", "timestep_dtype": "int64"},
        {"timestep": "batch"},
        {"timestep": "batch", "time_cond_proj_dim": 8},
        {"timestep": "scalar", "half": True},
    ],
)
def test_every_form_of_timestep(cache: Path, tmp_path: Path, options: dict) -> None:
    """Two images with guidance through a stored engine, against the export with a batch of four."""
    root = build_tiny_directory(tmp_path / "model", **options)
    directory = open_directory(root)
    signature = directory.parts["unet"].signature
    rng = np.random.default_rng(0)
    feeds: dict[str, np.ndarray] = {}
    for spec in signature.inputs:
        shape = tuple(
            size if isinstance(size, int) else (4, 0, 8, 8)[axis] or 7
            for axis, size in enumerate(spec.shape)
        )
        if spec.name == "timestep":
            shape = {"scalar": (), "steps": (1,), "batch": (4,)}[options["timestep"]]
            feeds[spec.name] = np.full(shape, 321, spec.dtype)
        else:
            feeds[spec.name] = rng.standard_normal(shape).astype(spec.dtype)
    feeds["sample"][2:] = feeds["sample"][:2]
    if "timestep_cond" in feeds:
        feeds["timestep_cond"][2:] = feeds["timestep_cond"][:2]
    expected = run_export(root / "unet" / "model.onnx", feeds)[0]

    engine = compile_directory(directory, "reference", cache)
    graphs = engine.parts["unet"].graphs
    # Where nothing could be shared, the body wants a row for each prompt.
    images = 2 if engine.parts["unet"].split["prefix"] else 4
    values = {
        name: array.astype(np.float32)[: 4 if name == "encoder_hidden_states" else images]
        for name, array in feeds.items()
        if name != "timestep"
    }
    # Without an Expand to the batch the timestep stays in the body, in its own form.
    has_rows = "time" in graphs or options["timestep"] == "batch"
    shape = (images,) if has_rows else feeds["timestep"].shape
    dtype = np.float32 if options.get("half") else feeds["timestep"].dtype
    values["timestep"] = np.full(shape, 321, dtype)
    for name in ("time", "prompt", "body"):
        if name in graphs:
            values |= run_compiled(load(graphs[name]), values)
    tolerance = 2e-2 if options.get("half") else 1e-5
    np.testing.assert_allclose(values["out_sample"], expected, rtol=0, atol=tolerance)


def test_coverage_says_what_is_left_and_why() -> None:
    directory = open_directory(TINY)
    found = measure_coverage(directory, directory.parts["text_encoder"])
    assert found.share > 0.99
    assert found.total == pytest.approx(sum(found.flops.values()))
    assert {left.op for left in found.leftovers} >= {"Add"}
    assert all(left.reason for left in found.leftovers)
    decoder = directory.parts["vae_decoder"].graph
    assert compile_graph(decoder, "vae_decoder", find_target("cpu-fp32")).coverage.share == 0.0


def test_flops_of_the_layers(tmp_path: Path) -> None:
    """One convolution, one linear layer, one attention: counted by hand."""
    text = """<ir_version: 8, opset_import: ["" : 23]>
    g (float[b, 4, h, w] x, float[b, n, 6] t) => (float[b, 8, p, q] y, float[b, n, 6] z)
    <float[8, 4, 3, 3] k, float[6, 6] m> {
        y = Conv<strides = [2, 2], pads = [1, 1, 1, 1]>(x, k)
        q = MatMul(t, m)
        shape = Constant<value_ints = [0, 0, 2, 3]>()
        r = Reshape(q, shape)
        heads = Transpose<perm = [0, 2, 1, 3]>(r)
        a = Attention(heads, heads, heads)
        back = Transpose<perm = [0, 2, 1, 3]>(a)
        flat = Constant<value_ints = [0, 0, 6]>()
        z = Reshape(back, flat)
    }"""
    model = onnx.parser.parse_model(text)
    for name, shape in (("k", (8, 4, 3, 3)), ("m", (6, 6))):
        array = np.ones(shape, np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(model, tmp_path / "model.onnx")
    sizes = {"b": 2, "h": 6, "w": 10, "n": 7}
    found = compile_graph(
        tmp_path / "model.onnx", "model", find_target("reference"), sizes
    ).coverage
    assert found.flops["Conv"] == 2 * (2 * 8 * 3 * 5) * (4 * 9)
    assert found.flops["Linear"] == 2 * (2 * 7 * 6) * 6
    assert found.flops["Attention"] == 2 * 2 * (2 * 7 * 7 * 6)


def save(tmp_path: Path, text: str) -> Path:
    onnx.save(onnx.parser.parse_model(text), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_operator_sets_that_are_not_known(tmp_path: Path) -> None:
    text = '<ir_version: 7, opset_import: ["" : 11]> g (float[b] x) => (float[b] y) { y = Relu(x) }'
    with pytest.raises(UnsupportedModelError, match="operator set 11, compiled are 13 to 24"):
        compile_graph(save(tmp_path, text), "unet", find_target("reference"))


def test_nested_graphs_are_refused(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (bool c, float[b] x) => (float[b] y) {
        y = If (c) <
            then_branch = t () => (a) { a = Relu(x) },
            else_branch = e () => (n) { n = Neg(x) }
        >
    }"""
    with pytest.raises(UnsupportedModelError, match="nested graphs"):
        compile_graph(save(tmp_path, text), "unet", find_target("reference"))


def test_an_unknown_operator_runs_as_it_is(tmp_path: Path) -> None:
    text = """<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
    g (float[b, 4] x) => (float[b, 4] y) {
        z = com.microsoft.BiasGelu(x, x)
        y = Relu(z)
    }"""
    compiled = compile_graph(save(tmp_path, text), "vae_decoder", find_target("cuda-fp16"))
    assert [node.op_type for node in compiled.graphs["model"].graph] == ["BiasGelu", "Relu"]


# --- commands


def test_the_command_compile(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["compile", str(TINY), "--target", "cuda-bf16", "--cache-dir", str(cache)]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("unet: 84.") for line in lines)
    assert Path(lines[-1]).is_dir()
    assert main([*arguments, "-q"]) == 0
    assert capsys.readouterr().out.splitlines() == [lines[-1]]


def test_a_device_has_a_target(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["compile", str(TINY), "-q", "--cache-dir", str(cache)]
    assert main([*arguments, "--device", "cuda:1"]) == 0
    assert "cuda-fp16" in capsys.readouterr().out
    assert main([*arguments, "--device", "cuda", "--target", "cuda-bf16"]) == 2
    assert "device: got 'cuda', allowed with a target is none" in capsys.readouterr().err
    assert main([*arguments, "--device", "tpu"]) == 2
    assert "device: got 'tpu'" in capsys.readouterr().err


def test_the_command_cache(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compile_directory(open_directory(TINY), "cuda-bf16", cache)
    assert main(["cache", "--cache-dir", str(cache), "--verify"]) == 0
    listed = capsys.readouterr().out
    assert "cuda-bf16" in listed
    assert "tiny_sd" in listed
    assert main(["cache", "--cache-dir", str(cache), "--prune"]) == 0
    assert "freed" in capsys.readouterr().out
    assert main(["cache", "--cache-dir", str(cache)]) == 0
    assert capsys.readouterr().out.startswith("0 engines")


def test_inspect_with_coverage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(TINY), "--coverage"]) == 0
    assert "Attention" in capsys.readouterr().out


def test_inspect_with_the_coverage_of_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(TINY), "--coverage", "--target", "cuda-fp16"]) == 0
    shown = capsys.readouterr().out
    assert "compiled for cuda-fp16" in shown
    assert "head width 8, kernels are for 16, 24" in shown


def test_a_wrong_target(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", str(TINY), "--target", "tpu"]) == 2
    assert capsys.readouterr().err.startswith("error[configuration]: target: got 'tpu'")


def test_the_same_model_gives_the_same_bytes() -> None:
    """Names and order do not depend on what was compiled before in this process."""
    path = EXPORTS / "unet_17.onnx"
    first, second = (compile_graph(path, "unet", find_target("cuda-fp16")) for _ in range(2))
    for name, model in first.graphs.items():
        again = ir.to_proto(second.graphs[name]).SerializeToString(deterministic=True)
        assert ir.to_proto(model).SerializeToString(deterministic=True) == again
