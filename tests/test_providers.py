"""The choice of what runs the graphs; OpenVINO's plugin where it is installed and offers a CPU."""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import textopia_fast as tx
from tests.ort import graphs
from tests.ort.test_runtime import run_python
from tests.support.inpainting_unet import add_mask_channels
from textopia_fast import _core, _ort, providers
from textopia_fast.cli.app import main
from textopia_fast.doctor import can_generate, examine
from textopia_fast.errors import ConfigurationError, InvalidRequestError, UnsupportedModelError
from textopia_fast.graph import compile_directory
from textopia_fast.models import open_directory
from textopia_fast.providers import choose_provider

TINY_SD = Path(__file__).parent / "golden" / "tiny_sd"
PROMPTS = ["a red circle on a blue background", "a green square", "a small yellow star"]
INSTALL = 'pip install "textopia-fast[openvino]"'

# Without the package.


@pytest.mark.parametrize("provider", [None, "auto", "cpu"])
def test_nothing_is_searched_unless_openvino_is_asked_for(
    provider: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "_find_library", lambda: pytest.fail("searched"))
    assert choose_provider(provider) is None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"provider": "cuda"}, "provider: got 'cuda'.* 'openvino'"),
        ({"provider": "OpenVINO"}, "provider: got 'OpenVINO'"),
        ({"provider": 3}, "provider: got 3"),
        ({"provider": ["cpu"]}, "provider: got"),
        ({"provider": "openvino", "precision": "int4"}, "precision: got 'int4'"),
        ({"provider": "openvino", "threads": -1}, "threads: got -1"),
        ({"provider": "openvino", "threads": 2.5}, "threads: got 2.5"),
        ({"provider": "openvino", "device": "cuda"}, "provider: got 'openvino'.* with a GPU"),
    ],
)
def test_impossible_options(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        choose_provider(**options)
    with pytest.raises(ConfigurationError, match=words):
        tx.Pipeline.from_pretrained(TINY_SD, **options)


@pytest.fixture(params=["nowhere", "without its library"])
def absent(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a package that is not there, or only half."""
    name = "textopia_test_plugin"
    monkeypatch.setattr(providers, "_PACKAGE", name)
    if request.param != "nowhere":
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('imported')")
        monkeypatch.syspath_prepend(tmp_path)
        importlib.invalidate_caches()
    return name


def test_a_package_that_is_not_there(absent: str, capsys: pytest.CaptureFixture[str]) -> None:
    for use in (
        lambda: choose_provider("openvino"),
        lambda: tx.Pipeline.from_pretrained(TINY_SD, provider="openvino"),
        lambda: tx.Denoiser(graphs.add(), provider="openvino"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            use()
        assert INSTALL in str(caught.value)
        assert caught.value.details["param"] == "provider"
    assert absent not in sys.modules
    findings = {finding.name: finding for finding in examine()}
    assert INSTALL in findings["openvino"].value
    assert "auto is cpu" in findings["provider"].value
    assert can_generate((findings["openvino"], findings["provider"]))  # nothing stands in the way
    assert main(["generate", "a", "-o", "a.png", "--provider", "openvino"]) != 0
    assert INSTALL in capsys.readouterr().err


def test_a_library_that_cannot_be_opened(tmp_path: Path) -> None:
    package = tmp_path / "onnxruntime_ep_openvino"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "libonnxruntime_providers_openvino_plugin.so").write_text("not a library")
    code = f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        from textopia_fast import errors, providers
        for attempt in range(2):  # a failure is not kept
            try:
                providers.choose_provider("openvino")
            except errors.ConfigurationError as error:
                print("cannot be opened" in error.message, error.hint)
        print(providers.describe_openvino())
    """
    first, second, described = run_python(code).splitlines()
    assert first == second
    assert first.startswith("True onnxruntime-ep-openvino needs an Intel CPU")
    assert "cannot be opened" in described


def test_engines_do_not_run_on_a_plugin(tmp_path: Path) -> None:
    plugin = _core.Plugin(library="", provider="", device={}, options={})
    directory = open_directory(TINY_SD)
    engine = compile_directory(directory, "reference", tmp_path)
    with pytest.raises(InvalidRequestError, match=r"plugin: got .* engine"):
        tx.Pipeline(directory, engine=engine, plugin=plugin)


# With it.


@pytest.fixture(scope="module")
def plugin() -> _core.Plugin:
    try:
        found = choose_provider("openvino", threads=1)
    except ConfigurationError as error:
        pytest.skip(f"needs OpenVINO's plugin and a CPU that it offers: {error.message}")
    assert found is not None
    return found


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (32, 32, 3), np.uint8))


def images(pipeline: tx.Pipeline, prompts: Any = PROMPTS, **options: Any) -> np.ndarray:
    options = {"num_inference_steps": 10, "seed": 7, "output_type": "np", **options}
    return np.asarray(pipeline(prompts, **options).images)


def test_pictures_of_fp32(plugin: _core.Plugin) -> None:
    cpu = tx.Pipeline.from_pretrained("tiny-shapes", precision="fp32")
    openvino = tx.Pipeline.from_pretrained("tiny-shapes", precision="fp32", provider="openvino")
    # float32 rounding of other kernels, on pictures in 0..1; 2e-6 was found.
    np.testing.assert_allclose(images(openvino), images(cpu), rtol=0, atol=1e-4)


@pytest.mark.skipif(_core.active_matrix_unit() == "scalar", reason="needs AVX512_BF16 or AMX")
def test_pictures_of_bf16(plugin: _core.Plugin) -> None:
    cpu = tx.Pipeline.from_pretrained("tiny-shapes", precision="fp32")
    openvino = tx.Pipeline.from_pretrained("tiny-shapes", precision="bf16", provider="openvino")
    assert openvino.engine is None
    error = images(openvino) - images(cpu)
    assert np.abs(error).max() > 1e-4  # it is another precision
    assert -10 * np.log10(np.mean(error**2)) > 38  # decibels; 57 were found


def test_inputs_are_read_at_every_run(plugin: _core.Plugin) -> None:
    session = _ort.create_session(graphs.add(), plugin=plugin)
    a, b, y = (np.zeros((2, 16), np.float32) for _ in range(3))
    binding = _core.Binding(session)
    binding.input("a", a)
    binding.input("b", b)
    binding.output("y", y)
    for step in range(3):
        a[:], b[:] = step, np.arange(16)
        binding.run()
        np.testing.assert_array_equal(y, a + b)


def test_a_node_that_openvino_leaves_is_an_error(plugin: _core.Plugin) -> None:
    graph = graphs.single("Binarizer", domain="ai.onnx.ml", domains=["ai.onnx.ml"])
    _ort.create_session(graph)  # the CPU provider takes it
    with pytest.raises(UnsupportedModelError, match="fallback"):
        _ort.create_session(graph, plugin=plugin)


def test_inpainting_models(plugin: _core.Plugin, tmp_path: Path) -> None:
    model = add_mask_channels(Path(shutil.copytree(TINY_SD, tmp_path / "model")))
    mask = Image.fromarray(np.full((32, 32), 255, np.uint8))
    options = {"prompts": PROMPTS[:1], "image": picture(), "mask_image": mask}
    cpu, openvino = (
        tx.Pipeline.from_pretrained(model, precision="fp32", provider=provider)
        for provider in ("cpu", "openvino")
    )
    found, expected = (images(p, num_inference_steps=4, **options) for p in (openvino, cpu))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


def test_two_pipelines_at_once(plugin: _core.Plugin) -> None:
    def work(seed: int) -> tuple[np.ndarray, np.ndarray]:
        pipeline = tx.Pipeline.from_pretrained(TINY_SD, precision="fp32", provider="openvino")
        options = {"seed": seed, "num_inference_steps": 4}
        return images(pipeline, **options), images(pipeline, **options)

    cpu = tx.Pipeline.from_pretrained(TINY_SD, precision="fp32")
    with ThreadPoolExecutor(2) as pool:
        for seed, pair in enumerate(pool.map(work, range(2))):
            expected = images(cpu, seed=seed, num_inference_steps=4)
            for found in pair:
                np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


def test_denoisers(plugin: _core.Plugin) -> None:
    path = open_directory(TINY_SD).parts["unet"].graph
    cpu, openvino = (tx.Denoiser(path, provider=provider) for provider in (None, "openvino"))
    assert openvino.conditioning_names == cpu.conditioning_names
    with pytest.raises(InvalidRequestError, match="provider: got 'openvino'"):
        tx.Denoiser(cpu.session, provider="openvino")


def test_silent_from_start_to_exit(plugin: _core.Plugin) -> None:
    code = f"""
        import sys
        import textopia_fast as tx
        pipeline = tx.Pipeline.from_pretrained({str(TINY_SD)!r}, provider="openvino")
        pipeline("a", num_inference_steps=2, seed=1)
        assert "onnxruntime" not in sys.modules
        print("onnxruntime_ep_openvino" in sys.modules)
    """
    chosen = {name: os.environ[name] for name in ("TEXTOPIA_ORT_LIBRARY",) if name in os.environ}
    assert run_python(code, **chosen) == "False"  # and no word on standard error, exit code 0
