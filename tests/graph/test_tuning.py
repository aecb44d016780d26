"""Measured plans: kept beside the engine, taken when it is opened, and never believed blindly."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from textopia_fast import _core, engines
from textopia_fast.cli import compiling, exits, main
from textopia_fast.errors import (
    ConfigurationError,
    InvalidRequestError,
    OutputError,
    TextopiaWarning,
)
from textopia_fast.graph import EngineDirectory, compile_directory, plans
from textopia_fast.graph.plans import PLANS, read_plans, write_plans
from textopia_fast.graph.tuning import tune_engine
from textopia_fast.models import BUNDLED, ModelDirectory, open_directory

SHAPE, PLAN = (64, 1, 0, 4, 1, 6, 1), (16, 3, 2)


@pytest.fixture(scope="module")
def model() -> ModelDirectory:
    if "avx512_bf16" not in _core.supported_matrix_units():
        pytest.skip("no avx512_bf16 here")
    return open_directory(BUNDLED["tiny-shapes"])


@pytest.fixture(scope="module")
def engine(model: ModelDirectory, tmp_path_factory: pytest.TempPathFactory) -> EngineDirectory:
    return compile_directory(model, "cpu-bf16", tmp_path_factory.mktemp("engines"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Of an engine, as far as the file of plans knows one."""
    made = tmp_path / "engine"
    made.mkdir()
    return made


def test_tuning_keeps_plans_that_a_session_takes(
    model: ModelDirectory, engine: EngineDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[str, int, int]] = []
    results = tune_engine(
        engine, model, threads=2, seconds=1.5, progress=lambda *args: shown.append(args)
    )
    names = ["text_encoder/model", "unet/prompt", "vae_encoder/model", "vae_decoder/model"]
    assert [result.graph for result in results] == [*names, "unet/body"]
    assert {name for name, _, _ in shown} == {f"tuning {result.graph}" for result in results}
    assert all(0 <= done <= total for _, done, total in shown)
    for result in results:
        assert 0 <= result.plans <= result.shapes
        assert result.seconds_after <= result.seconds_before
        assert (result.seconds_after < result.seconds_before) == (result.plans > 0)
    kept = json.loads((engine.path / PLANS).read_text())["records"]
    assert [(record["unit"], record["threads"]) for record in kept] == [("avx512_bf16", 2)]
    # The manifest does not know the file, and opening compares the manifest.
    assert compile_directory(model, "cpu-bf16", engine.path.parent).path == engine.path

    given = []
    original = engines.create_session
    monkeypatch.setattr(
        engines,
        "create_session",
        lambda *args, **options: given.append(options["plans"]) or original(*args, **options),
    )
    for threads, is_kept in ((2, True), (3, False)):
        engines.GraphSource(model, engine, threads).open("vae_decoder")
        assert isinstance(given.pop(), _core.KeptPlans) == is_kept


def test_plans_do_not_change_a_picture(model: ModelDirectory, engine: EngineDirectory) -> None:
    def picture() -> np.ndarray:
        session = engines.GraphSource(model, engine, 2).open("vae_decoder")
        latent = np.random.default_rng(0).standard_normal((1, 4, 8, 8), np.float32)
        return session.run({"latent_sample": latent})["sample"]

    before = picture()
    trials = _core.PlanTrials()
    path = engine.parts["vae_decoder"].graphs["model"]
    session = engines.create_session(path, threads=2, plans=trials)
    session.run({"latent_sample": np.zeros((1, 4, 8, 8), np.float32)})
    found = [(shape, tried[-1][0]) for shape, tried in trials.trials()]
    assert len(found) > 5
    write_plans(engine.path, 2, found)
    assert np.array_equal(picture(), before)
    (engine.path / PLANS).write_text("{}")
    with pytest.warns(TextopiaWarning, match="is ignored"):
        assert np.array_equal(picture(), before)


def test_records_of_other_machines_stay_and_are_not_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_plans(folder, 2) is None
    write_plans(folder, 2, [(SHAPE, PLAN)])
    write_plans(folder, 4, [(SHAPE, PLAN)])
    write_plans(folder, 2, [(SHAPE, (8, 3, 2))])
    records = json.loads((folder / PLANS).read_text())["records"]
    assert [record["threads"] for record in records] == [4, 2]
    assert records[1]["plans"] == [[list(SHAPE), [8, 3, 2]]]
    assert read_plans(folder, 2) is not None
    assert read_plans(folder, 3) is None
    monkeypatch.setattr(plans, "_cpu", lambda: "another")
    assert read_plans(folder, 2) is None
    write_plans(folder, 2, [])
    assert len(json.loads((folder / PLANS).read_text())["records"]) == 3
    assert not list(folder.glob(f".{PLANS}*"))


def edited(change: Callable[[dict[str, Any]], object], signed: bool) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = json.loads(path.read_text())
        change(content)
        if signed:
            content["checksum"] = plans._checksum(content)
        path.write_text(json.dumps(content))

    return damage


def first(content: dict[str, Any]) -> dict[str, Any]:
    return content["records"][0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-9]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff\xfe\x00"),
        lambda path: path.write_text("[" * 100_000),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text("{}" + " " * (5 << 20)),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), path.symlink_to("nowhere")),
        edited(lambda content: content.update(format=2), signed=True),
        edited(lambda content: content.update(engine="another"), signed=True),
        edited(lambda content: first(content)["plans"][0][1].__setitem__(0, 17), signed=False),
        # Well signed, and wrong all the same: whoever writes such a file knows the way.
        edited(lambda content: first(content)["plans"][0][1].__setitem__(0, 10**9), signed=True),
        edited(lambda content: first(content)["plans"][0][1].__setitem__(2, 2**40), signed=True),
        edited(lambda content: first(content)["plans"][0][0].pop(), signed=True),
        edited(lambda content: first(content)["plans"].append("x"), signed=True),
        edited(lambda content: first(content).pop("threads"), signed=True),
        edited(lambda content: content.update(records=7), signed=True),
    ],
)
def test_files_that_are_not_believed(folder: Path, damage: Callable[[Path], None]) -> None:
    write_plans(folder, 2, [(SHAPE, PLAN)])
    damage(folder / PLANS)
    with pytest.warns(TextopiaWarning, match=f"{PLANS} is ignored"):
        assert read_plans(folder, 2) is None


def test_plans_of_a_copied_engine_are_foreign(folder: Path) -> None:
    write_plans(folder, 2, [(SHAPE, PLAN)])
    copy = folder.parent / "copy"
    shutil.copytree(folder, copy)
    with pytest.warns(TextopiaWarning, match="it belongs to"):
        assert read_plans(copy, 2) is None
    write_plans(copy, 2, [(SHAPE, PLAN)])  # takes the place of what was foreign
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_plans(copy, 2) is not None


def test_a_folder_that_cannot_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(plans.os, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        write_plans(folder, 2, [(SHAPE, PLAN)])
    assert not list(folder.glob(f"*{PLANS}*"))


def test_what_cannot_be_tuned(model: ModelDirectory, engine: EngineDirectory) -> None:
    with pytest.raises(ConfigurationError, match="tune"):
        compile_directory(model, "cpu-fp32", engine.path.parent, tune=True)
    with pytest.raises(InvalidRequestError, match="size"):
        tune_engine(engine, model, size=(60, 64))
    with pytest.raises(InvalidRequestError, match="threads"):
        tune_engine(engine, model, threads=0)


def test_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "tune_engine", partial(tune_engine, seconds=0.5))
    where = ["--cache-dir", str(tmp_path)]
    assert main(["compile", "tiny-shapes", *where, "--tune", "--threads", "1"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert sum("plans for" in line for line in out) == 5
    assert (Path(out[-1]) / PLANS).is_file()
    assert main(["compile", "tiny-shapes", *where, "--size", "64x64"]) == exits.USAGE
    assert "go with --tune" in capsys.readouterr().err
    assert main(["compile", "tiny-shapes", *where, "--tune", "--target", "cpu-fp32"]) != 0
    assert "--tune" in capsys.readouterr().err
