"""The engine cache: written once, never half, found damaged when it is, and cleaned."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from textopia_fast.errors import OutputError, TextopiaWarning
from textopia_fast.graph.cache import EngineCache, default_cache_dir
from textopia_fast.graph.manifest import MANIFEST, write_manifest


def builder(content: str = "weights", calls: list[Path] | None = None) -> Callable[[Path], None]:
    def build(folder: Path) -> None:
        if calls is not None:
            calls.append(folder)
        (folder / "unet").mkdir()
        (folder / "unet" / "body.onnx").write_text("graph")
        (folder / "unet" / "body.weights").write_text(content)
        write_manifest(folder, {"model": "m", "target": "cpu-bf16"})

    return build


def test_built_once_and_found_afterwards(tmp_path: Path) -> None:
    calls: list[Path] = []
    cache = EngineCache(tmp_path / "cache")
    folder, facts = cache.obtain("key", builder(calls=calls))
    assert (folder, facts["target"]) == (tmp_path / "cache" / "key", "cpu-bf16")
    assert EngineCache(tmp_path / "cache").obtain("key", builder(calls=calls))[0] == folder
    assert len(calls) == 1
    assert calls[0] != folder  # it was written under another name


def test_a_build_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise RuntimeError("no")

    cache = EngineCache(tmp_path)
    with pytest.raises(RuntimeError, match="no"):
        cache.obtain("key", build)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    assert cache.obtain("key", builder())[0].is_dir()  # and the lock is free again


def truncate(folder: Path) -> None:
    (folder / "unet" / "body.weights").write_text("weigh")


def flip(folder: Path) -> None:
    (folder / "unet" / "body.onnx").write_text("grapi")


def lose(folder: Path) -> None:
    (folder / "unet" / "body.weights").unlink()


def garble(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(b"\xff{")


def nest(folder: Path) -> None:
    (folder / MANIFEST).write_text("[" * 100_000)


def older(folder: Path) -> None:
    facts = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**facts, "format": 0}))


def escape(folder: Path) -> None:
    (folder.parent / "secret").write_text("x")
    facts = json.loads((folder / MANIFEST).read_text())
    facts["files"]["../secret"] = {"bytes": 1, "checksum": "0"}
    (folder / MANIFEST).write_text(json.dumps(facts))


@pytest.mark.parametrize("damage", [truncate, flip, lose, garble, nest, older, escape])
def test_damage_is_found_and_mended_with_a_warning(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    cache = EngineCache(tmp_path)
    folder, _ = cache.obtain("key", builder())
    damage(folder)
    with pytest.warns(TextopiaWarning, match="compiled again"):
        cache.obtain("key", builder())
    assert (folder / "unet" / "body.weights").read_text() == "weights"
    assert cache.entries()[0].problem is None


def test_a_changed_bit_in_the_weights_is_found_by_a_full_check(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    folder, _ = cache.obtain("key", builder())
    (folder / "unet" / "body.weights").write_text("weightt")
    assert cache.entries()[0].problem is None  # of the same size
    assert "body.weights' has changed" in str(cache.entries("full")[0].problem)


def build_in_a_process(root: str, started: float) -> None:
    def build(folder: Path) -> None:
        with open(Path(root) / "log", "a") as log:
            log.write("build\n")
        time.sleep(0.2)
        builder()(folder)

    EngineCache(Path(root)).obtain("key", build)


def test_two_processes_at_once_build_one(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=build_in_a_process, args=(str(tmp_path), time.time()))
        for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "build\n"


def test_a_full_disk(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OutputError, match="No space left") as caught:
        EngineCache(tmp_path).obtain("key", build)
    assert caught.value.errno == errno.ENOSPC
    assert "Free some space" in str(caught.value)
    assert not list(tmp_path.glob(".new-*"))


def test_a_full_disk_that_numpy_found(tmp_path: Path) -> None:
    def build(folder: Path) -> None:
        raise OSError("84864 requested and 15360 written")  # ndarray.tofile's own, without a number

    with pytest.raises(OutputError, match=r"No space left.*Free some space") as caught:
        EngineCache(tmp_path).obtain("key", build)
    assert caught.value.errno == errno.ENOSPC


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"):
        EngineCache(tmp_path / "file" / "cache").obtain("key", builder())


def test_listing_and_pruning(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path)
    for index, name in enumerate(("old", "new")):
        folder, _ = cache.obtain(name, builder("x" * 1000))
        os.utime(folder, (index, index))
    broken, _ = cache.obtain("broken", builder())
    truncate(broken)
    (tmp_path / ".new-left").mkdir()
    (tmp_path / ".new-left-file").write_text("half")
    entries = cache.entries()
    assert [entry.path.name for entry in entries] == ["broken", "new", "old"]
    assert entries[1].bytes > 1000
    removed = cache.prune(keep_bytes=entries[1].bytes + 500)
    assert {entry.path.name for entry in removed} == {"broken", "old"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "new.lock"]
    cache.prune()
    assert cache.entries() == []


def test_an_empty_cache(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "nowhere")
    assert cache.entries() == []
    assert cache.prune() == []


def test_fingerprints_follow_the_contents(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "cache")
    file = tmp_path / "model.onnx"
    file.write_text("one")
    first = cache.fingerprint(file)
    assert cache.fingerprint(file) == first
    file.write_text("two")
    os.utime(file, (1, 1))
    assert cache.fingerprint(file) != first
    (tmp_path / "cache" / "known-files.json").write_text("{broken")
    assert cache.fingerprint(file) != first


def test_where_engines_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TEXTOPIA_CACHE_DIR", str(tmp_path))
    assert default_cache_dir() == tmp_path
    monkeypatch.delenv("TEXTOPIA_CACHE_DIR")
    assert default_cache_dir().parts[-2:] == ("textopia_fast", "engines")
