"""Texts that a tokenizer meets, the usual and the strange."""

from __future__ import annotations

import random

TEXTS = [
    "",
    " ",
    "a photo of an astronaut riding a horse on mars",
    "A  RED\tCircle\n on\u00a0a blue\u3000background!!!",
    "the square and the circle, red on blue",
    "naïve café ÅNGSTRÖM Å e\u0301 ﬁ ½ ² Ⅷ",
    "🎨🖼️ 👩‍👩‍👧 flags 🇫🇷",
    "日本語のテキスト 漢字 क्षत्रिय ไทย ａｂｃ",
    "12345 3.14 1e-3 $5 12 121212",
    "don't I'll we've they're he's I'm you'd DON'T 's't ''''",
    "<|endoftext|>",
    "hello<|startoftext|>world <|ENDOFTEXT|> <|endoftext|>x",
    "! !! !!! a!b ! c!! !",
    "hello, world. (weighted:1.2) [x] {y} </w> a</w> _under_score_",
    "\x00\x01\x7f\x85 \u2028 \u200b\u200d \ufeff x\x1cy",
    "İstanbul ẞ ΣΑΣ",
    "a" * 300,
    "word " * 200,
    "circle " * 75,
    "circle " * 76,
    "é" * 100,
]


def random_texts(count: int, seed: int = 0) -> list[str]:
    """Half of them typed on a keyboard, half of them from all over Unicode."""
    rng = random.Random(seed)
    keys = "abcdefghijklmnopqrstuvwxyz redcircleblue 0123456789 .,!?'-_#@<|>/\\ éßñ中😀\u0301\t\n"
    ranges = [(0x20, 0x7E), (0xA0, 0x1FFF), (0x2000, 0xD7FE), (0xE000, 0x1FFFF)]
    texts = []
    for number in range(count):
        length = rng.randint(0, 120)
        if number % 2:
            points = (rng.randint(*rng.choice(ranges)) for _ in range(length // 3))
            texts.append("".join(map(chr, points)))
        else:
            texts.append("".join(rng.choice(keys) for _ in range(length)))
    return texts
