"""Tokenizer files that are broken: a typed error that names the file and the entry."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_tokenizer import build_vocabulary, write_tokenizer
from textopia_fast.errors import (
    ModelError,
    ModelFormatError,
    ModelNotFoundError,
    UnsafeModelError,
    UnsupportedModelError,
)
from textopia_fast.text import Tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer"
    write_tokenizer(path, build_vocabulary(), "<|endoftext|>", True)
    (path / "tokenizer.json").rename(path / "fast")
    return path


def refused(folder: Path, kind: type[ModelError], text: str) -> None:
    with pytest.raises(ModelError) as caught:
        Tokenizer.from_directory(folder)
    assert type(caught.value) is kind, caught.value
    assert text in str(caught.value)
    assert str(caught.value).isprintable()


def edit(path: Path, change: Callable[[Any], object]) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        (lambda v: v.clear(), UnsafeModelError, "has 0 tokens"),
        (lambda v: v.update(x=-1), ModelFormatError, "'x' has the id -1"),
        (lambda v: v.update(x="7"), ModelFormatError, "'x' has the id '7'"),
        (lambda v: v.update(x=True), ModelFormatError, "'x' has the id True"),
        (lambda v: v.update(x=1.0), ModelFormatError, "'x' has the id 1.0"),
        (lambda v: v.update(x=2**40), ModelFormatError, "1099511627776"),
        (lambda v: v.update(zz=0), ModelFormatError, "the same id to two tokens"),
        (lambda v: v.update({"y" * 513: 9000}), UnsafeModelError, "513 characters"),
        (lambda v: v.update({"\ud800": 9000}), ModelFormatError, "not valid text"),
        (lambda v: v.pop("red</w>"), ModelFormatError, "needs the token 'red</w>'"),
        (lambda v: v.pop("<|endoftext|>"), ModelFormatError, "eos_token '<|endoftext|>' is not in"),
    ],
)
def test_broken_vocabularies(
    folder: Path, change: Callable[[Any], object], kind: type[ModelError], text: str
) -> None:
    edit(folder / "vocab.json", change)
    refused(folder, kind, text)


def test_a_vocabulary_beyond_the_limit(folder: Path) -> None:
    (folder / "vocab.json").write_text(json.dumps({str(i): i for i in range(200_001)}))
    refused(folder, UnsafeModelError, "200,001 tokens, allowed are 1 to 200,000")


def test_ids_need_not_be_dense(folder: Path) -> None:
    edit(folder / "vocab.json", lambda v: v.update({"<|endoftext|>": 150_000}))
    assert Tokenizer.from_directory(folder).eos_id == 150_000


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("re", "two tokens are expected"),
        ("r e d", "two tokens are expected"),
        ("r  e", "two tokens are expected"),
        (" e", "two tokens are expected"),
        ("q zzz", "needs the token 'zzz'"),
        ("q q", "needs the token 'qq'"),
        ("\x1b[31m x", "needs the token '\\x1b[31m'"),
    ],
)
def test_broken_merges(folder: Path, line: str, text: str) -> None:
    merges = folder / "merges.txt"
    merges.write_text(merges.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    refused(folder, ModelFormatError, text)


def test_merges_may_have_other_line_ends(folder: Path) -> None:
    before = Tokenizer.from_directory(folder).encode(["red circle"])
    merges = folder / "merges.txt"
    lines = merges.read_bytes().splitlines()
    merges.write_bytes(b"\r\n".join(lines[1:]) + b"\r\n\r\n")  # and no version line
    assert (Tokenizer.from_directory(folder).encode(["red circle"]) == before).all()


def test_merges_that_are_no_text(folder: Path) -> None:
    (folder / "merges.txt").write_bytes(b"#version\n\xff\xfe r\n")
    refused(folder, ModelFormatError, "tokenizer/merges.txt: is not UTF-8")


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        (lambda v: v.update(tokenizer_class="T5Tokenizer"), UnsupportedModelError, "'T5Tokenizer'"),
        (lambda v: v.update(model_max_length=2), ModelFormatError, "model_max_length is 2"),
        (lambda v: v.update(model_max_length="77"), ModelFormatError, "'77'"),
        (lambda v: v.update(model_max_length=77.5), ModelFormatError, "77.5"),
        (lambda v: v.update(model_max_length=4097), ModelFormatError, "4097"),
    ],
)
def test_impossible_configurations(
    folder: Path, change: Callable[[Any], object], kind: type[ModelError], text: str
) -> None:
    edit(folder / "tokenizer_config.json", change)
    refused(folder, kind, text)


@pytest.mark.parametrize("entry", [7, {"content": 7}, {"text": "x"}, ["x"]])
def test_impossible_special_tokens(folder: Path, entry: object) -> None:
    edit(folder / "special_tokens_map.json", lambda v: v.update(pad_token=entry))
    refused(folder, ModelFormatError, "pad_token is")


def test_configurations_are_optional(folder: Path) -> None:
    before = Tokenizer.from_directory(folder)
    (folder / "tokenizer_config.json").unlink()
    (folder / "special_tokens_map.json").unlink()
    after = Tokenizer.from_directory(folder)
    assert (after.encode(["a red circle"]) == before.encode(["a red circle"])).all()


def test_no_length_means_that_of_clip(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", lambda v: v.update(model_max_length=1e30))
    assert Tokenizer.from_directory(folder).max_length == 77


def test_the_map_of_special_tokens_comes_first(folder: Path) -> None:
    # As in Stable Diffusion 2: the configuration says one thing, the map another, the map counts.
    edit(folder / "special_tokens_map.json", lambda v: v.update(pad_token="!"))
    assert Tokenizer.from_directory(folder).pad_id == 0


def test_tokens_added_later_are_refused(folder: Path) -> None:
    (folder / "added_tokens.json").write_text('{"<|endoftext|>": 535}')
    assert Tokenizer.from_directory(folder).eos_id == 535
    (folder / "added_tokens.json").write_text('{"<my-style>": 536}')
    refused(folder, UnsupportedModelError, "'<my-style>'")


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        (lambda v: v.pop("model"), ModelFormatError, "no object 'model'"),
        (lambda v: v["model"].update(type="Unigram"), UnsupportedModelError, "'Unigram'"),
        (lambda v: v["model"].update(end_of_word_suffix=None), UnsupportedModelError, "None"),
        (lambda v: v["model"].update(merges=7), ModelFormatError, "no merges"),
        (lambda v: v["model"].update(vocab=[]), ModelFormatError, "no vocabulary"),
        (lambda v: v["model"]["merges"].append(7), ModelFormatError, "two tokens"),
        (lambda v: v["model"]["merges"].append([["r"], "e"]), ModelFormatError, "two tokens"),
        (lambda v: v["model"]["merges"].append(["r"]), ModelFormatError, "two tokens"),
    ],
)
def test_broken_tokenizer_json(
    folder: Path, change: Callable[[Any], object], kind: type[ModelError], text: str
) -> None:
    (folder / "fast").rename(folder / "tokenizer.json")
    (folder / "vocab.json").unlink()
    edit(folder / "tokenizer.json", change)
    refused(folder, kind, text)


def test_expressions_of_tokenizer_json_are_not_run(folder: Path) -> None:
    before = Tokenizer.from_directory(folder).encode(["a" * 60])
    (folder / "fast").rename(folder / "tokenizer.json")
    (folder / "vocab.json").unlink()
    # Exponential in a backtracking engine.
    hostile = {"type": "Split", "pattern": {"Regex": "(a+)+$|b"}, "behavior": "Isolated"}
    edit(folder / "tokenizer.json", lambda v: v.update(pre_tokenizer=hostile))
    assert (Tokenizer.from_directory(folder).encode(["a" * 60]) == before).all()


def test_no_files_at_all(tmp_path: Path) -> None:
    refused(tmp_path, ModelNotFoundError, "neither vocab.json with merges.txt nor tokenizer.json")


def test_mutations_load_or_end_in_a_model_error(folder: Path) -> None:
    rng = random.Random(0)
    for _ in range(60):
        file = rng.choice([p for p in sorted(folder.iterdir()) if p.name != "fast"])
        original = file.read_bytes()
        at = rng.randrange(len(original))
        spoiled = [original[:at], original[:at] + rng.randbytes(3) + original[at + 3 :]]
        file.write_bytes(rng.choice(spoiled))
        with contextlib.suppress(ModelError):
            Tokenizer.from_directory(folder)
        file.write_bytes(original)
