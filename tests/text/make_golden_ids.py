"""Makes golden_ids.json: the ids that transformers' CLIPTokenizer gives to the texts of texts.py.

Run from the repository's root with transformers installed: python -m tests.text.make_golden_ids
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import tokenizers
import transformers

from tests.support.tiny_tokenizer import build_vocabulary, write_tokenizer
from tests.text.texts import TEXTS

TARGET = Path(__file__).with_name("golden_ids.json")


def main() -> None:
    golden: dict[str, object] = {
        "made_by": "tests/text/make_golden_ids.py",
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
    }
    for pad_token in ("<|endoftext|>", "!"):
        with tempfile.TemporaryDirectory() as folder:
            write_tokenizer(Path(folder), build_vocabulary(), pad_token, False)
            tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
            golden[pad_token] = [
                tokenizer([text], padding="max_length", truncation=True).input_ids[0]
                for text in TEXTS
            ]
    TARGET.write_text(json.dumps(golden, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
