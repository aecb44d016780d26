"""The tokenizer of tiny-shapes: CLIP's byte-level BPE, with one token for each word of the world.

Writes the files that `transformers.CLIPTokenizer` reads. Any other text still works: it falls apart
into bytes and into pieces of known words.
"""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

from captions import vocabulary_words

MAX_TOKENS = 24
START, END = "<|startoftext|>", "<|endoftext|>"


def byte_alphabet() -> list[str]:
    """The 256 printable characters that stand for the 256 bytes, in CLIP's (GPT-2's) order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(c) for c in printable] + [chr(256 + i) for i in range(256 - len(printable))]


def _merge(pieces: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged, i = [], 0
    while i < len(pieces):
        width = 2 if pieces[i : i + 2] == pair else 1
        merged.append("".join(pieces[i : i + width]))
        i += width
    return tuple(merged)


def byte_pair_merges(words: list[str]) -> list[tuple[str, str]]:
    """Plain byte-pair encoding, continued until each of the words is a single token."""
    split = {w: (*w[:-1], w[-1] + "</w>") for w in words}
    merges = []
    while any(len(pieces) > 1 for pieces in split.values()):
        pairs = Counter(p for pieces in split.values() for p in pairwise(pieces))
        pair = max(sorted(pairs), key=pairs.get)
        merges.append(pair)
        split = {w: _merge(pieces, pair) for w, pieces in split.items()}
    return merges


def build_tokenizer(folder: Path) -> int:
    """Writes vocab.json, merges.txt and the two configurations; returns the vocabulary size."""
    alphabet = byte_alphabet()
    merges = byte_pair_merges(vocabulary_words())
    tokens = alphabet + [c + "</w>" for c in alphabet] + [a + b for a, b in merges] + [START, END]
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: i for i, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), "utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", "utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": MAX_TOKENS,
        "do_lower_case": True,
        "errors": "replace",
        "add_prefix_space": False,
        **special,
    }
    for name, value in (("tokenizer_config", config), ("special_tokens_map", special)):
        (folder / f"{name}.json").write_text(json.dumps(value, indent=2) + "\n", "utf-8")
    return len(tokens)


class CaptionEncoder:
    """The quick path for captions made of known words: the same ids as the full tokenizer."""

    def __init__(self, folder: Path):
        self.ids = json.loads((folder / "vocab.json").read_text("utf-8"))

    def __call__(self, caption: str) -> list[int]:
        """Token ids of length `MAX_TOKENS`: start, words, end, padded with the end token."""
        words = caption.replace(",", " ,").split()
        ids = [self.ids[START], *(self.ids[w + "</w>"] for w in words)][: MAX_TOKENS - 1]
        return ids + [self.ids[END]] * (MAX_TOKENS - len(ids))
