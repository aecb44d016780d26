"""Token ids: equal to transformers' CLIPTokenizer, cut with a warning, refused when impossible."""

from __future__ import annotations

import json
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

from tests.support.tiny_tokenizer import build_vocabulary, write_tokenizer
from tests.text.texts import TEXTS, random_texts
from textopia_fast.errors import InvalidRequestError, TextopiaWarning
from textopia_fast.text import MAX_PROMPT_BYTES, Tokenizer

GOLDEN = json.loads(Path(__file__).with_name("golden_ids.json").read_text(encoding="utf-8"))


def make(path: Path, pad_token: str = "<|endoftext|>", fast: bool = False) -> Path:
    write_tokenizer(path, build_vocabulary(), pad_token, fast)
    return path


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.from_directory(make(tmp_path_factory.mktemp("tokenizer")))


def encode(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TextopiaWarning)
        return tokenizer.encode(texts)


@pytest.mark.parametrize("pad_token", ["<|endoftext|>", "!"])
@pytest.mark.parametrize("fast", [False, True])
def test_golden_ids(tmp_path: Path, pad_token: str, fast: bool) -> None:
    folder = make(tmp_path, pad_token, fast)
    if fast:  # the other form of the same data
        (folder / "vocab.json").unlink()
        (folder / "merges.txt").unlink()
    ids = encode(Tokenizer.from_directory(folder), TEXTS)
    assert ids.dtype == np.int64
    for text, found, expected in zip(TEXTS, ids.tolist(), GOLDEN[pad_token], strict=True):
        assert found == expected, f"{text!r}; if that is meant, run tests/text/make_golden_ids.py"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("pad_token", ["<|endoftext|>", "!"])
def test_equal_to_transformers(tmp_path: Path, pad_token: str) -> None:
    transformers = pytest.importorskip("transformers")
    folder = make(tmp_path, pad_token)
    theirs = transformers.CLIPTokenizer.from_pretrained(folder)
    ours = Tokenizer.from_directory(folder)
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (
        theirs.bos_token_id,
        theirs.eos_token_id,
        theirs.pad_token_id,
    )
    for text in TEXTS + random_texts(400):
        expected = theirs([text], padding="max_length", truncation=True).input_ids[0]
        assert encode(ours, [text])[0].tolist() == expected, repr(text)


def test_known_words(tokenizer: Tokenizer) -> None:
    vocab = build_vocabulary()
    row = tokenizer.encode(["a red CIRCLE"])[0]
    begin, end = vocab["<|startoftext|>"], vocab["<|endoftext|>"]
    words = [vocab[word + "</w>"] for word in ("a", "red", "circle")]
    assert row[:5].tolist() == [begin, *words, end]
    assert (row[5:] == end).all()
    assert row.shape == (77,)


def test_shapes_of_batches(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode([]).shape == (0, 77)
    assert tokenizer.encode(["a", "b c", ""]).shape == (3, 77)
    assert tokenizer.encode("not a list").shape == (1, 77)


def test_a_shorter_length(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_directory(make(tmp_path), max_length=8)
    assert tokenizer.encode(["red circle"]).shape == (1, 8)
    assert Tokenizer.from_directory(tmp_path, max_length=500).max_length == 77


@pytest.mark.parametrize("words", [75, 76])
def test_the_limit_of_tokens(tokenizer: Tokenizer, words: int) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        row = tokenizer.encode(["circle " * words])[0]
    assert (row[1:76] == row[1]).all()
    assert row[76] == tokenizer.eos_id
    assert len(caught) == (words > 75)


def test_the_warning_shows_what_was_cut(tokenizer: Tokenizer) -> None:
    text = "red " * 75 + "Square on the ünder 😀 circle"
    with pytest.warns(TextopiaWarning) as caught:
        tokenizer.encode([text], param="negative_prompt")
    message = str(caught[0].message)
    assert message.startswith("negative_prompt: has ")
    assert "the model takes 75" in message
    assert message.endswith("'square on the ünder 😀 circle'")
    assert caught[0].filename == __file__


@pytest.mark.filterwarnings("ignore")
def test_the_cut_part_is_what_diffusers_shows(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.CLIPTokenizer.from_pretrained(make(tmp_path))
    ours = Tokenizer.from_directory(tmp_path)
    for text in ("word " * 80, "red circle, (blue) ünder 😀! " * 12, "x" * 200):
        untruncated = theirs([text]).input_ids[0]
        expected = theirs.decode(untruncated[theirs.model_max_length - 1 : -1])
        with pytest.warns(TextopiaWarning) as caught:
            ours.encode([text])
        shown = str(caught[0].message).split("not used: ")[1]
        assert shown.startswith(repr(expected)[:390].rstrip("'"))


def test_decode_is_the_way_back(tokenizer: Tokenizer) -> None:
    text = "the red circle is ünder 😀 , 日本"
    assert tokenizer.decode(tokenizer.encode([text])[0].tolist()) == text
    assert tokenizer.decode([]) == ""
    assert tokenizer.decode([10**6]) == ""


@pytest.mark.parametrize("value", [None, 7, b"bytes", ["nested"]])
def test_something_that_is_no_text(tokenizer: Tokenizer, value: object) -> None:
    with pytest.raises(InvalidRequestError, match="prompt: is of type") as caught:
        tokenizer.encode([value])  # type: ignore[list-item]
    assert caught.value.details["param"] == "prompt"


def test_half_of_a_surrogate_pair(tokenizer: Tokenizer) -> None:
    with pytest.raises(InvalidRequestError, match="lone surrogate at 2"):
        tokenizer.encode(["ab\ud800"])


def test_the_limit_of_bytes(tokenizer: Tokenizer) -> None:
    assert MAX_PROMPT_BYTES == 32768
    encode(tokenizer, ["é" * 16384])
    with pytest.raises(InvalidRequestError, match=r"32,769 bytes, at most 32,768"):
        tokenizer.encode(["é" * 16384 + "x"])


def test_many_threads_get_the_same_ids(tokenizer: Tokenizer) -> None:
    expected = [encode(tokenizer, [text]) for text in TEXTS]
    wrong: list[str] = []

    def work() -> None:
        # Not through `warnings`: its filters belong to the whole process.
        for text, ids in zip(TEXTS[:15], expected, strict=False):
            if not np.array_equal(tokenizer.encode([text]), ids):
                wrong.append(text)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
