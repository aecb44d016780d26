"""The tokenizer files give transformers' CLIPTokenizer the ids that training used."""

import random

import pytest

from captions import random_caption
from tokenizer import MAX_TOKENS, CaptionEncoder, build_tokenizer
from world import random_scene


def test_every_word_is_one_token(tmp_path):
    size = build_tokenizer(tmp_path)
    encode = CaptionEncoder(tmp_path)
    ids = encode("a small red circle at the top, on a blue background")
    assert len(ids) == MAX_TOKENS
    assert ids[0] == size - 2
    assert ids.index(size - 1) == 13  # start, eleven words and a comma, end


def test_equals_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    build_tokenizer(tmp_path)
    encode = CaptionEncoder(tmp_path)
    reference = transformers.CLIPTokenizer.from_pretrained(str(tmp_path))
    rng = random.Random(0)
    captions = ["", *(random_caption(rng, random_scene(rng)) for _ in range(200))]
    expected = reference(captions, padding="max_length", max_length=MAX_TOKENS, truncation=True)
    assert [encode(c) for c in captions] == expected.input_ids
