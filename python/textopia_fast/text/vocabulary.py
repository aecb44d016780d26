"""Reads the files of a CLIP tokenizer: the vocabulary, the merges and the special tokens.

Both forms are read, `vocab.json` with `merges.txt` and `tokenizer.json`. From the second only the
data is taken: its regular expressions are never run, CLIP's are built in.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checks import shown
from ..errors import (
    ModelError,
    ModelFormatError,
    ModelNotFoundError,
    UnsafeModelError,
    UnsupportedModelError,
)
from ..models.files import ModelFiles
from ..models.limits import (
    MAX_MERGES,
    MAX_TOKEN_CHARACTERS,
    MAX_TOKENIZER_BYTES,
    MAX_VOCABULARY,
)
from ..models.problems import EXPORT_AGAIN, INCOMPLETE

__all__ = ["SpecialToken", "Vocabulary", "read_vocabulary"]

_CLASSES = ("CLIPTokenizer", "CLIPTokenizerFast")
_DEFAULTS = {
    "bos_token": "<|startoftext|>",
    "eos_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
}
_DEFAULT_LENGTH = 77
_MAX_LENGTH = 4096


@dataclass(frozen=True)
class SpecialToken:
    """A token that is found in the text as it stands, before any splitting.

    Attributes:
        text: The token.
        normalized: It is looked for in the lower-cased text instead of the text as given.
        lstrip: It takes the white space on its left with it.
        rstrip: ... on its right.
        single_word: It only counts as a word of its own.
    """

    text: str
    normalized: bool = False
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


@dataclass(frozen=True)
class Vocabulary:
    """Contents of a tokenizer's directory.

    Attributes:
        ids: Id of each token.
        merges: Pairs of tokens in the order of their rank.
        special: The tokens "bos_token", "eos_token", "unk_token" and "pad_token".
        max_length: Length of an encoded prompt, begin and end included.
    """

    ids: Mapping[str, int]
    merges: tuple[tuple[str, str], ...]
    special: Mapping[str, SpecialToken]
    max_length: int


def read_vocabulary(path: Path, root: Path | None = None) -> Vocabulary:
    """Reads and validates a tokenizer's directory.

    Args:
        path: The directory.
        root: The model directory that its files may link into; None: the one above `path`.

    Raises:
        ModelNotFoundError: Files are missing or unreadable.
        ModelFormatError: Files are malformed or contradict each other.
        UnsupportedModelError: It is not a CLIP tokenizer.
        UnsafeModelError: A stated limit is exceeded.
    """
    files = ModelFiles(root or path.parent)
    config = _optional_json(files, path / "tokenizer_config.json")
    kind = config.get("tokenizer_class")
    if kind is not None and kind not in _CLASSES:
        raise _error(
            UnsupportedModelError,
            files.label(path / "tokenizer_config.json"),
            f"tokenizer_class is {shown(kind)}, supported are {', '.join(_CLASSES)}",
        )
    both = (path / "vocab.json", path / "merges.txt")
    fast = path / "tokenizer.json"
    if all(os.path.lexists(file) for file in both):
        ids = _read_ids(
            files.read_json(both[0], "tokenizer", MAX_TOKENIZER_BYTES), files.label(both[0])
        )
        lines = files.read_text(both[1], MAX_TOKENIZER_BYTES, "tokenizer").split("\n")
        merges = _read_merges(_merge_lines(lines), ids, files.label(both[1]))
    elif os.path.lexists(fast):
        ids, merges = _read_fast(files, fast)
    else:
        raise _error(
            ModelNotFoundError,
            files.label(path),
            "has neither vocab.json with merges.txt nor tokenizer.json",
            INCOMPLETE,
        )
    _check_added(files, path / "added_tokens.json", ids)
    special = _read_special(files, path, config)
    for role, token in special.items():
        if token.text not in ids:
            raise _error(
                ModelFormatError,
                files.label(path),
                f"the {role} {shown(token.text)} is not in the vocabulary",
            )
    return Vocabulary(ids, merges, special, _read_length(files, path, config))


def _error(kind: type[ModelError], label: str, text: str, hint: str = EXPORT_AGAIN) -> ModelError:
    return kind(f"{label}: {text}.", hint=hint, component="tokenizer", path=label)


def _optional_json(files: ModelFiles, path: Path) -> dict[str, Any]:
    return files.read_json(path, "tokenizer") if os.path.lexists(path) else {}


def _read_ids(table: Mapping[str, Any], label: str) -> dict[str, int]:
    if not 1 <= len(table) <= MAX_VOCABULARY:
        raise _error(
            UnsafeModelError,
            label,
            f"has {len(table):,} tokens, allowed are 1 to {MAX_VOCABULARY:,}",
        )
    for token, number in table.items():
        # type(): True is an int as well.
        if type(number) is not int or not 0 <= number < MAX_VOCABULARY:
            raise _error(
                ModelFormatError,
                label,
                f"token {shown(token)} has the id {shown(number)}, allowed are whole numbers "
                f"from 0 to {MAX_VOCABULARY - 1:,}",
            )
    if len(set(table.values())) != len(table):
        raise _error(ModelFormatError, label, "gives the same id to two tokens")
    _check_tokens(table, label)
    return dict(table)


def _check_tokens(tokens: Iterable[str], label: str) -> None:
    for token in tokens:
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise _error(
                UnsafeModelError,
                label,
                f"token {shown(token, 40)} has {len(token):,} characters, at most "
                f"{MAX_TOKEN_CHARACTERS} are allowed",
            )
        if not token.isascii() and any("\ud800" <= char <= "\udfff" for char in token):
            # Half of a surrogate pair, written as an escape.
            raise _error(ModelFormatError, label, f"token {shown(token)} is not valid text")


def _merge_lines(lines: list[str]) -> Iterable[tuple[int, list[str]]]:
    for number, line in enumerate(lines, 1):
        line = line.rstrip("\r")
        if line and not (number == 1 and line.startswith("#version")):
            yield number, line.split(" ")


def _read_merges(
    pairs: Iterable[tuple[int, list[str]]], ids: Mapping[str, int], label: str
) -> tuple[tuple[str, str], ...]:
    merges: list[tuple[str, str]] = []
    for number, pair in pairs:
        left, right = pair if len(pair) == 2 else ("", "")
        if type(left) is not str or type(right) is not str or not left or not right:
            raise _error(
                ModelFormatError,
                label,
                f"merge {number:,} is {shown(' '.join(map(str, pair)))}, two tokens are expected",
            )
        if left not in ids or right not in ids or left + right not in ids:
            missing = next(t for t in (left, right, left + right) if t not in ids)
            raise _error(
                ModelFormatError,
                label,
                f"merge {number:,} needs the token {shown(missing)}, which the vocabulary lacks",
            )
        merges.append((left, right))
    if len(merges) > MAX_MERGES:
        raise _error(
            UnsafeModelError,
            label,
            f"has {len(merges):,} merges, at most {MAX_MERGES:,} are allowed",
        )
    return tuple(merges)


def _read_fast(files: ModelFiles, path: Path) -> tuple[dict[str, int], tuple[tuple[str, str], ...]]:
    label = files.label(path)
    model = files.read_json(path, "tokenizer", MAX_TOKENIZER_BYTES).get("model")
    if not isinstance(model, dict):
        raise _error(ModelFormatError, label, "has no object 'model'")
    suffix = model.get("end_of_word_suffix")
    if model.get("type", "BPE") != "BPE" or suffix != "</w>":
        raise _error(
            UnsupportedModelError,
            label,
            f"is of type {shown(model.get('type'))} with the end-of-word suffix {shown(suffix)}; "
            "supported is CLIP's, BPE with '</w>'",
        )
    vocab, merges = model.get("vocab"), model.get("merges")
    if not isinstance(vocab, dict) or not isinstance(merges, list):
        raise _error(ModelFormatError, label, "has no vocabulary or no merges")
    ids = _read_ids(vocab, label)
    pairs = ((i, m.split(" ") if isinstance(m, str) else m) for i, m in enumerate(merges, 1))
    lists = ((i, pair if isinstance(pair, list) else [pair]) for i, pair in pairs)
    return ids, _read_merges(lists, ids, label)


def _check_added(files: ModelFiles, path: Path, ids: Mapping[str, int]) -> None:
    added = _optional_json(files, path)
    strange = [token for token, number in added.items() if ids.get(token) != number]
    if strange:
        raise _error(
            UnsupportedModelError,
            files.label(path),
            f"adds the token {shown(strange[0])}, which is not in the vocabulary",
            "Tokens added after training, as for textual inversion, are not supported.",
        )


def _read_special(
    files: ModelFiles, path: Path, config: Mapping[str, Any]
) -> dict[str, SpecialToken]:
    table = _optional_json(files, path / "special_tokens_map.json")
    special = {}
    for role, default in _DEFAULTS.items():
        entry = table.get(role) or config.get(role) or default  # the order that transformers has
        flags: dict[str, bool] = {}
        if isinstance(entry, dict):
            names = ("normalized", "lstrip", "rstrip", "single_word")
            flags = {name: entry[name] is True for name in names if name in entry}
            entry = entry.get("content")
        if not isinstance(entry, str) or not entry:
            raise _error(
                ModelFormatError,
                files.label(path),
                f"{role} is {shown(entry)}, a text or an object with 'content' is expected",
            )
        special[role] = SpecialToken(entry, **flags)
    return special


def _read_length(files: ModelFiles, path: Path, config: Mapping[str, Any]) -> int:
    length = config.get("model_max_length", _DEFAULT_LENGTH)
    if length is None or (isinstance(length, (int, float)) and length > 1e9):
        return _DEFAULT_LENGTH  # "no limit"; the text encoder has one all the same
    if type(length) is not int or not 3 <= length <= _MAX_LENGTH:
        raise _error(
            ModelFormatError,
            files.label(path / "tokenizer_config.json"),
            f"model_max_length is {shown(length)}, whole numbers from 3 to {_MAX_LENGTH:,} are "
            "allowed",
        )
    return length
