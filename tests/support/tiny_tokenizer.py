"""A CLIP tokenizer of 536 entries: all bytes, a few merges, the two special tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.tiny_graphs import MAX_LENGTH

MERGES = (
    *("r e", "re d</w>", "r e</w>", "c i", "r c", "ci rc", "circ l", "circl e</w>", "a n"),
    *("o n</w>", "b l", "u e</w>", "bl ue</w>", "t h", "th e</w>", "s q", "sq u", "squ a"),
    *("squa re</w>", "! !</w>", "1 2", "e d</w>"),
)
"""Rank order matters: "re d</w>" is made before "e d</w>" gets its turn."""


def byte_characters() -> list[str]:
    """The 256 printable characters that stand for bytes in byte-level BPE, in CLIP's order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = len([b for b in range(256) if b not in printable])
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(others)]


def build_vocabulary() -> dict[str, int]:
    single = byte_characters()
    tokens = single + [c + "</w>" for c in single] + [pair.replace(" ", "") for pair in MERGES]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return {token: index for index, token in enumerate(tokens)}


def write_tokenizer(path: Path, vocab: dict[str, int], pad_token: str, fast: bool) -> None:
    """Vocabulary, merges and both configurations, as `CLIPTokenizer.save_pretrained` does."""
    path.mkdir(exist_ok=True)
    (path / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    (path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n", encoding="utf-8")
    special = {
        "content": "<|endoftext|>",
        "lstrip": False,
        "normalized": True,
        "rstrip": False,
        "single_word": False,
    }
    start = special | {"content": "<|startoftext|>"}
    _write_json(
        path / "special_tokens_map.json",
        {"bos_token": start, "eos_token": special, "unk_token": special, "pad_token": pad_token},
    )
    _write_json(
        path / "tokenizer_config.json",
        {
            "tokenizer_class": "CLIPTokenizer",
            "do_lower_case": True,
            "errors": "replace",
            "model_max_length": MAX_LENGTH,
            "bos_token": {"__type": "AddedToken", **start},
            "eos_token": {"__type": "AddedToken", **special},
            "pad_token": pad_token,
            "unk_token": {"__type": "AddedToken", **special},
        },
    )
    if fast:
        write_fast_tokenizer(path, vocab)


def write_fast_tokenizer(path: Path, vocab: dict[str, int]) -> None:
    """tokenizer.json, in the form that the fast CLIP tokenizer is saved in."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    merges = [tuple(pair.split()) for pair in MERGES]
    tokenizer = Tokenizer(
        models.BPE(
            vocab,
            merges,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            unk_token="<|endoftext|>",
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    specials = r"<\|startoftext\|>|<\|endoftext\|>"
    pattern = specials + r"|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    start, end = "<|startoftext|>", "<|endoftext|>"
    tokenizer.add_special_tokens([start, end])
    tokenizer.post_processor = processors.RobertaProcessing(
        (end, vocab[end]), (start, vocab[start]), False, False
    )
    tokenizer.save(str(path / "tokenizer.json"))


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
