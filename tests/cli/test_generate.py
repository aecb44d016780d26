"""`textopia-fast generate` on a stand-in pipeline: files, options, messages, exit codes."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from textopia_fast import errors
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
