"""CLIP's tokenizer: text to token ids, equal to `transformers.CLIPTokenizer`.

Lower case, white space cleaned up, Unicode NFC, then byte-level byte-pair encoding with an
end-of-word mark (Radford et al. 2021, "Learning Transferable Visual Models From Natural Language
Supervision", section 2.4). The encoding itself is done by the `tokenizers` library.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import shown
from ..errors import InvalidRequestError, ModelFormatError, TextopiaWarning
from ..models.problems import EXPORT_AGAIN
from .vocabulary import Vocabulary, read_vocabulary

__all__ = ["MAX_PROMPT_BYTES", "Tokenizer"]

MAX_PROMPT_BYTES = 32 << 10
"""Longest prompt in bytes of UTF-8."""

_SPLIT = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
_END_OF_WORD = "</w>"
_SHOWN_REMOVED = 400


class Tokenizer:
    """Encodes prompts to ids of one fixed length. Immutable; safe to use from many threads.

    Attributes:
        max_length: Length of every encoded prompt, begin and end included.
        bos_id: Id of the token that begins a prompt.
        eos_id: Id of the token that ends it.
        pad_id: Id of the tokens after the end.
        max_id: Largest id of the vocabulary.
    """

    def __init__(self, vocabulary: Vocabulary, max_length: int | None = None) -> None:
        ids, special = vocabulary.ids, vocabulary.special
        self.max_length = min(vocabulary.max_length, max_length or vocabulary.max_length)
        self.bos_id = ids[special["bos_token"].text]
        self.eos_id = ids[special["eos_token"].text]
        self.pad_id = ids[special["pad_token"].text]
        self.max_id = max(ids.values())
        self._special_ids = {ids[token.text] for token in special.values()}
        self._backend = _build(vocabulary)

    @classmethod
    def from_directory(
        cls, path: str | os.PathLike[str], *, max_length: int | None = None
    ) -> Tokenizer:
        """Reads `vocab.json` and `merges.txt`, or `tokenizer.json`, with their configurations.

        Args:
            path: The tokenizer's directory.
            max_length: Shortens the length of encoded prompts to what the text encoder takes.

        Raises:
            ModelError: A file is missing, malformed or too large; see `read_vocabulary`.
        """
        return cls(read_vocabulary(Path(path)), max_length)

    def encode(self, prompts: Sequence[str], *, param: str = "prompt") -> np.ndarray:
        """Token ids of prompts, cut and padded to `max_length`.

        A prompt that is too long is cut, with a `TextopiaWarning` that shows the part that was
        not used.

        Args:
            prompts: The texts; a single string counts as one.
            param: Name of the parameter, for messages.

        Returns:
            int64 [B, max_length].

        Raises:
            InvalidRequestError: A prompt is no valid text or longer than 32 KiB.
        """
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        rows = np.full((len(texts), self.max_length), self.pad_id, dtype=np.int64)
        room = self.max_length - 2
        for row, text in zip(rows, texts, strict=True):
            _check_prompt(text, param)
            encoding = self._backend.encode(text, add_special_tokens=False)
            ids = encoding.ids
            if len(ids) > room:
                removed = self._decode(encoding.tokens[room:])
                warnings.warn(
                    f"{param}: has {len(ids)} tokens, the model takes {room}; this part was not "
                    f"used: {shown(removed, _SHOWN_REMOVED)}",
                    TextopiaWarning,
                    stacklevel=2,
                )
                ids = ids[:room]
            row[0] = self.bos_id
            row[1 : len(ids) + 1] = ids
            row[len(ids) + 1] = self.eos_id
        return rows

    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, without the special ones."""
        tokens = [self._backend.id_to_token(int(i)) for i in ids if i not in self._special_ids]
        return self._decode([token for token in tokens if token is not None])

    def _decode(self, tokens: list[str]) -> str:
        text = "".join(tokens).replace(_END_OF_WORD, " ")
        data = b"".join(_BYTES.get(char, char.encode("utf-8")) for char in text)
        return data.decode("utf-8", "replace").strip()


def _build(vocabulary: Vocabulary) -> Any:
    """The `tokenizers` object with CLIP's rules."""
    from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    try:
        model = models.BPE(
            dict(vocabulary.ids),
            list(vocabulary.merges),
            continuing_subword_prefix="",
            end_of_word_suffix=_END_OF_WORD,
            fuse_unk=False,
            unk_token=vocabulary.special["unk_token"].text,
        )
    except Exception as error:  # the library raises plain Exception
        raise ModelFormatError(
            f"tokenizer: the vocabulary and merges do not fit together ({shown(str(error))}).",
            hint=EXPORT_AGAIN,
            component="tokenizer",
        ) from error
    backend = Backend(model)
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.add_special_tokens(
        [
            AddedToken(
                token.text,
                normalized=token.normalized,
                lstrip=token.lstrip,
                rstrip=token.rstrip,
                single_word=token.single_word,
            )
            for token in dict.fromkeys(vocabulary.special.values())
        ]
    )
    return backend


def _check_prompt(text: object, param: str) -> None:
    if not isinstance(text, str):
        raise InvalidRequestError(
            f"{param}: is of type {type(text).__name__}, a text is expected.", param=param
        )
    try:
        size = len(text.encode("utf-8"))
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"{param}: is not valid Unicode (a lone surrogate at {error.start:,}).", param=param
        ) from error
    if size > MAX_PROMPT_BYTES:
        raise InvalidRequestError(
            f"{param}: has {size:,} bytes, at most {MAX_PROMPT_BYTES:,} are allowed.", param=param
        )


def _byte_table() -> dict[str, bytes]:
    """The byte for which each of the 256 characters of byte-level encoding stands."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in set(printable)]
    table = {chr(b): bytes([b]) for b in printable}
    return table | {chr(256 + i): bytes([b]) for i, b in enumerate(others)}


_BYTES = _byte_table()
