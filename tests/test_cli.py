"""The program: what it writes, what it prints, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from tests.support.tiny_directory import build_tiny_directory
from textopia_fast import doctor, errors
from textopia_fast.cli import exits, generate, main
from textopia_fast.errors import InvalidRequestError


class FakePipeline:
    """Stands in for the pipeline: notes how it was called, returns pictures of one colour."""

    def __init__(self, fail: BaseException | None = None) -> None:
        self.opened: tuple[Any, ...] | None = None
        self.prompts: list[str] = []
        self.options: dict[str, Any] = {}
        self._fail = fail

    def open(self, *arguments: Any) -> FakePipeline:
        self.opened = arguments
        return self

    def __call__(self, prompts: list[str], **options: Any) -> Any:
        self.prompts, self.options = prompts, options
        if self._fail is not None:
            raise self._fail
        if "progress" in options:
            for step in range(3):
                options["progress"](step + 1, 3)
        count = len(prompts) * options.get("num_images_per_prompt", 1)
        seed = options.get("seed", 40)
        return SimpleNamespace(
            images=[Image.new("RGB", (16, 8), (k, 0, 0)) for k in range(count)],
            seeds=tuple(range(seed, seed + count)),
            timings={"total": 12.0},
            parameters={
                "prompt": [p for p in prompts for _ in range(count // len(prompts))],
                "negative_prompt": [options.get("negative_prompt", "")] * count,
                "num_inference_steps": 20,
                "guidance_scale": 7.5,
                "width": 16,
                "height": 8,
                "sampler": "euler",
                "schedule": None,
            },
        )


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakePipeline:
    pipeline = FakePipeline()
    monkeypatch.setattr(generate, "open_pipeline", pipeline.open)
    monkeypatch.chdir(tmp_path)
    return pipeline


def failing(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    monkeypatch.setattr(generate, "open_pipeline", FakePipeline(error).open)


# --- generate -----------------------------------------------------------------------------------


def test_one_picture(fake: FakePipeline, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "a cat", "-o", "cat.png"]) == 0
    out, err = capsys.readouterr()
    assert out == "cat.png\n"
    assert err == "seed 40; 20 steps of euler; 12 ms\n"
    with Image.open("cat.png") as image:
        assert image.size == (16, 8)
        assert not image.text
    assert fake.opened is not None
    (job,) = fake.opened
    assert (job.model, job.threads, job.precision, job.device) == (
        "tiny-shapes",
        None,
        "auto",
        "auto",
    )
    # Nothing that was not given: the defaults are the pipeline's.
    assert (fake.prompts, fake.options) == (["a cat"], {})


def test_every_option_arrives(fake: FakePipeline) -> None:
    arguments = (
        "generate cat -o x.png -m dir -n dog --steps 7 --guidance 2.5 --seed 9 --size 64x128 "
        "--sampler heun --schedule karras --count 1 --eta 0.5 --threads 3 --device cuda:1 "
        "--precision bf16 -q"
    )
    assert main(arguments.split()) == 0
    assert fake.opened is not None
    (job,) = fake.opened
    assert (job.model, job.threads, job.precision, job.device) == ("dir", 3, "bf16", "cuda:1")
    assert fake.options == {
        "negative_prompt": "dog",
        "num_inference_steps": 7,
        "guidance_scale": 2.5,
        "seed": 9,
        "width": 64,
        "height": 128,
        "sampler": "heun",
        "schedule": "karras",
        "num_images_per_prompt": 1,
        "eta": 0.5,
    }


@pytest.mark.parametrize(
    ("output", "names"),
    [
        ("a.png", ["a-0.png", "a-1.png", "a-2.png", "a-3.png"]),
        ("{index}.png", ["0.png", "1.png", "2.png", "3.png"]),
        ("s{seed}_{index}.PNG", ["s5_0.PNG", "s6_1.PNG", "s7_2.PNG", "s8_3.PNG"]),
    ],
)
def test_names_of_several(
    fake: FakePipeline, capsys: pytest.CaptureFixture[str], output: str, names: list[str]
) -> None:
    assert main(["generate", "a", "b", "--count", "2", "--seed", "5", "-o", output]) == 0
    assert capsys.readouterr().out.split() == names
    assert sorted(os.listdir()) == sorted(names)


def test_metadata(fake: FakePipeline) -> None:
    arguments = "generate cat -n dog -o x.png -m some/where --metadata"
    assert main(arguments.split()) == 0
    with Image.open("x.png") as image:
        assert image.text["parameters"] == (
            "cat\nNegative prompt: dog\n"
            "Steps: 20, Sampler: euler, CFG scale: 7.5, Seed: 40, Size: 16x8, Model: where"
        )


def test_overwriting_is_a_choice(fake: FakePipeline, capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.png").write_bytes(b"old")
    assert main(["generate", "cat", "-o", "x.png"]) == exits.OUTPUT
    assert (
        "error[output_failed]: x.png: is there already. Use --overwrite" in capsys.readouterr().err
    )
    assert not fake.prompts, "it must say so before the work, not after"
    assert Path("x.png").read_bytes() == b"old"
    assert main(["generate", "cat", "-o", "x.png", "--overwrite"]) == 0


def test_a_bar_on_terminals_only(
    fake: FakePipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert main(["generate", "cat", "-o", "x.png"]) == 0
    assert "progress" in fake.options
    assert main(["generate", "cat", "-o", "x.png", "-f", "-q"]) == 0
    assert "progress" not in fake.options
    assert capsys.readouterr().out == "x.png\nx.png\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("-o x.jpg", "ends in '.jpg', only .png"),
        ("-o x", "ends in ''"),
        ("-o {time}.png", "has the field 'time'"),
        ("-o {}.png", "has the field ''"),
        ("-o {seed.__class__}.png", "has the field 'seed.__class__'"),
        ("-o x.png --size 64", "size: is '64'"),
        ("-o x.png --size 0x64", "size: is '0x64'"),
        ("-o x.png --size 64x64 --width 64", "either --size or"),
        ("-o x.png --steps many", "--steps"),
        ("-o x.png --nonsense", "--nonsense"),
        ("", "-o"),
    ],
)
def test_wrong_usage(
    fake: FakePipeline, capsys: pytest.CaptureFixture[str], arguments: str, text: str
) -> None:
    assert main(["generate", "cat", *arguments.split()]) == exits.USAGE
    err = capsys.readouterr().err
    assert text in err
    assert err.startswith("error[")
    assert err.count("\n") == 1
    assert not os.listdir()


def test_an_output_directory_that_is_missing(
    fake: FakePipeline, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "cat", "-o", "no/x.png"]) == exits.OUTPUT
    assert "error[output_failed]: no: there is no such directory" in capsys.readouterr().err
    assert not fake.prompts


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (
            errors.InvalidRequestError("steps: is 0.", param="steps"),
            2,
            "error[invalid_request]: steps",
        ),
        (errors.UnsupportedParameterError("x: no."), 2, "error[unsupported_parameter]"),
        (errors.ConfigurationError("device: no.", param="device"), 2, "error[configuration]"),
        (errors.ConfigurationError("no runtime."), 3, "error[configuration]"),
        (errors.ModelNotFoundError("m: gone."), 3, "error[model_not_found]"),
        (errors.UnsafeModelError("m: bad."), 3, "error[model_unsafe]"),
        (errors.OutOfMemoryError("unet: no room."), 4, "error[out_of_memory]"),
        (errors.NumericalError("unet: NaN."), 4, "error[numerical]"),
        (errors.ExecutionError("unet: failed."), 4, "error[execution_failed]"),
        (errors.DeadlineExceededError("late."), 4, "error[deadline_exceeded]"),
        (MemoryError(), 4, "error[out_of_memory]"),
        (errors.OutputError("x: full.", errno=28), 5, "error[output_failed]"),
        (errors.InternalError("a bug."), 70, "error[internal]"),
        (errors.EngineClosedError("closed."), 70, "error[engine_closed]"),
        (ZeroDivisionError("oops"), 70, "error[internal]: ZeroDivisionError: oops"),
        (KeyboardInterrupt(), 130, "error[interrupted]"),
        (errors.GenerationCancelled("stopped."), 130, "error[cancelled]"),
    ],
)
def test_exit_codes(
    fake: FakePipeline,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    line: str,
) -> None:
    failing(monkeypatch, error)
    assert main(["generate", "cat", "-o", "x.png"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.strip().startswith(line)
    assert len(err.strip().splitlines()) == 1
    assert not os.listdir()


@pytest.mark.parametrize("place", [0, 1, 4])
def test_tracebacks_on_request(
    fake: FakePipeline,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: int,
) -> None:
    failing(monkeypatch, errors.ModelFormatError("m: bad."))
    arguments = ["generate", "cat", "-o", "x.png"]
    arguments.insert(place, "--debug")
    assert main(arguments) == 3
    assert "Traceback" in capsys.readouterr().err


def test_a_prompt_may_look_like_an_option(fake: FakePipeline) -> None:
    assert main(["generate", "-o", "x.png", "--", "--debug"]) == 0
    assert fake.prompts == ["--debug"]


def test_control_characters_do_not_reach_the_terminal(
    fake: FakePipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, InvalidRequestError("prompt: \x1b[31m\nerror[fake]: x"))
    assert main(["generate", "cat", "-o", "x.png"]) == 2
    assert capsys.readouterr().err == "error[invalid_request]: prompt: \\x1b[31m\\nerror[fake]: x\n"


def test_warnings_are_lines(
    fake: FakePipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def warn(*arguments: Any) -> FakePipeline:
        import warnings

        warnings.warn("prompt: was cut.", errors.TextopiaWarning, stacklevel=1)
        return fake

    monkeypatch.setattr(generate, "open_pipeline", warn)
    assert main(["generate", "cat", "-o", "x.png", "-q"]) == 0
    assert capsys.readouterr().err == "warning: prompt: was cut.\n"


# --- the other commands -------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"], ["inspect", "--help"]])
def test_help(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 0
    assert "Usage: textopia-fast" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["bogus"], ["inspect"], ["samplers", "x"]])
def test_wrong_commands(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == exits.USAGE
    assert capsys.readouterr().err.startswith("error[usage]: ")


def test_samplers(capsys: pytest.CaptureFixture[str]) -> None:
    from textopia_fast.samplers import STEP_BY_STEP, names

    assert main(["samplers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*names(), *STEP_BY_STEP]
    assert all("arXiv" in line or "Roberts" in line for line in lines)


def test_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = build_tiny_directory(tmp_path / "model", external_data=True, timestep="steps")
    assert main(["inspect", str(root)]) == 0
    out = capsys.readouterr().out
    for text in (
        "StableDiffusionPipeline",
        "sample: float32 [batch_size, 4, height, width]",
        "timestep: float32 [steps]",
        "of external data",
        "opset 18, by tiny_directory",
        "DDIMScheduler",
        "536 ids, 77 tokens a prompt",
        "64x64 pixels",
        "not run",
    ):
        assert text in out


def test_inspect_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "/nowhere"]) == exits.MODEL
    assert capsys.readouterr().err.startswith("error[model_not_found]: ")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from textopia_fast import __version__

    assert main(["version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    findings = {finding.name: finding for finding in doctor.examine()}
    assert main(["doctor"]) == (0 if doctor.can_generate(tuple(findings.values())) else 3)
    out = capsys.readouterr().out
    for name in ("python", "cpu features", "instruction set", "onnx runtime", "gpu"):
        assert name in out
    assert not findings["cpu features"].problem
    assert not findings["instruction set"].problem
    assert not findings["gpu"].problem


def test_doctor_without_a_runtime(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from textopia_fast import _ort

    def missing() -> None:
        raise errors.ConfigurationError("onnxruntime: is not installed.")

    monkeypatch.setattr(_ort, "runtime_info", missing)
    assert main(["doctor"]) == exits.MODEL
    out = capsys.readouterr().out
    assert "!! onnx runtime" in out
    assert "pip install" in out


def test_doctor_survives_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(doctor, "_python", broken)
    findings = doctor.examine()
    assert any(f.value == "RuntimeError: broken" and f.problem for f in findings)
    assert not doctor.can_generate(findings)


# --- the real thing -----------------------------------------------------------------------------


def test_a_picture_of_the_tiny_model(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def picture(name: str, *more: str) -> bytes:
        target = str(tmp_path / name)
        arguments = ["generate", "a red circle", "-m", str(tiny_model), "-o", target]
        assert main([*arguments, "--steps", "3", "--seed", "7", *more]) == 0
        assert capsys.readouterr().out == f"{target}\n"
        with Image.open(target) as image:
            assert image.size == (64, 64)
            return image.tobytes()

    first = picture("a.png")
    assert picture("b.png") == first
    assert picture("c.png", "--guidance", "3") != first


def test_a_wrong_request_to_the_real_pipeline(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "a.png"
    arguments = ["generate", "cat", "-m", str(tiny_model), "-o", str(target), "--size", "63x64"]
    assert main(arguments) == exits.USAGE
    assert capsys.readouterr().err.startswith("error[invalid_request]: width: ")
    assert not target.exists()


_DRIVER = """
import sys
from textopia_fast.cli import generate, main
really_open = generate.open_pipeline
def open_and_say(*arguments):
    pipeline = really_open(*arguments)
    print("ready", flush=True)
    return pipeline
generate.open_pipeline = open_and_say
sys.exit(main(sys.argv[1:]))
"""


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A process of this interpreter; it is gone afterwards, whatever happens."""
    path = os.pathsep.join(entry or "." for entry in sys.path)
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_ctrl_c(tiny_model: Path, tmp_path: Path) -> None:
    arguments = ["generate", "cat", "-m", str(tiny_model), "-o", str(tmp_path / "a.png")]
    with started("-c", _DRIVER, *arguments, "--steps", "1000", "--size", "1024x1024") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == exits.INTERRUPTED
    assert err == "error[interrupted]: stopped by the keyboard.\n"
    assert not list(tmp_path.iterdir())


def test_a_reader_that_goes_away() -> None:
    with started("-m", "textopia_fast", "samplers") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 0


def test_the_code_of_the_process() -> None:
    with started("-m", "textopia_fast", "inspect", "/nowhere") as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == exits.MODEL
    assert err.startswith("error[model_not_found]: ")


def test_help_is_light() -> None:
    code = "import sys; from textopia_fast.cli import main; main(['--help']); print(*sys.modules)"
    with started("-c", code) as process:
        out, _ = process.communicate(timeout=60)
    loaded = set(out.splitlines()[-1].split())
    assert not loaded & {"onnx", "tokenizers", "onnxruntime", "PIL", "torch"}


# --- pictures to start from ---------------------------------------------------------------------


def test_a_picture_to_start_from(fake: FakePipeline) -> None:
    Image.new("RGB", (24, 16), (1, 2, 3)).save("in.png")
    Image.new("L", (24, 16), 255).save("mask.png")
    options = ["--image", "in.png", "--strength", "0.4", "--mask", "mask.png"]
    assert main(["generate", "a cat", "-o", "x.png", *options]) == 0
    assert fake.options.pop("mask_image").getpixel((0, 0)) == 255
    image = fake.options.pop("image")
    assert image.size == (24, 16)
    assert image.getpixel((0, 0)) == (1, 2, 3)
    assert fake.options == {"strength": 0.4}


def test_a_picture_that_is_none(fake: FakePipeline, capsys: pytest.CaptureFixture[str]) -> None:
    Path("in.png").write_text("no picture")
    for name in ("in.png", "not there.png"):
        assert main(["generate", "a cat", "-o", "x.png", "--image", name]) != 0
        assert "image_invalid" in capsys.readouterr().err
    assert fake.opened is None
