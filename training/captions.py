"""Captions for scenes: templates with synonyms, always lower case.

Attributes that a caption leaves out are random in the picture, so a prompt may leave them out too.
"""

from __future__ import annotations

import random

from world import COLOR_NAMES, POSITIONS, SHAPES, SIZES, Scene

SIZE_WORDS = {
    "small": ("small", "small", "little", "tiny"),
    "large": ("large", "large", "big", "huge"),
}
COLOR_WORDS = {"purple": ("purple", "purple", "violet")}
POSITION_PHRASES = {
    "center": ("in the center", "in the centre", "in the middle", "at the center"),
    "left": ("on the left", "at the left", "on the left side", "to the left"),
    "right": ("on the right", "at the right", "on the right side", "to the right"),
    "top": ("at the top", "on the top", "near the top", "at the top"),
    "bottom": ("at the bottom", "on the bottom", "near the bottom", "at the bottom"),
}
POSITION_WORDS = {
    "center": ("center", "centre", "middle"),
    "left": ("left",),
    "right": ("right",),
    "top": ("top",),
    "bottom": ("bottom",),
}
BACKGROUND_PHRASES = (
    "on {} background",
    "on {} background",
    "on {} background",
    "with {} background",
    "against {} background",
    "on {color}",
)
PREFIXES = ("a picture of ", "an image of ", "a drawing of ")


def _article(words: str) -> str:
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def _color(rng: random.Random, name: str) -> str:
    return rng.choice(COLOR_WORDS.get(name, (name,)))


def plain_caption(shape: str, color: str, background: str, size: str, position: str) -> str:
    """The canonical caption that names every attribute."""
    thing = _article(f"{size} {color} {shape}")
    return f"{thing} {POSITION_PHRASES[position][0]} on {_article(background)} background"


def random_caption(rng: random.Random, scene: Scene, full: bool = False) -> str:
    """A random caption for a scene; unless `full`, it may leave attributes out."""
    noun = f"{_color(rng, scene.color)} {scene.shape}"
    if full or rng.random() < 0.75:
        noun = f"{rng.choice(SIZE_WORDS[scene.size])} {noun}"
    place = ""
    if full or rng.random() < 0.75:
        place = rng.choice(POSITION_PHRASES[scene.position])
    background = ""
    if full or rng.random() < 0.93:
        color = _color(rng, scene.background)
        background = rng.choice(BACKGROUND_PHRASES).format(_article(color), color=color)
    style = rng.random()
    if background and style < 0.06:  # "on a blue background, a red circle at the top"
        return f"{background}, {_article(noun)} {place}".strip()
    comma = "," if style < 0.16 and background and place else ""
    first, second = (place, background) if rng.random() < 0.8 else (background, place)
    words = [_article(noun), first + comma if first else "", second]
    prefix = rng.choice(PREFIXES) if rng.random() < 0.1 else ""
    return prefix + " ".join(w for w in words if w)


def vocabulary_words() -> list[str]:
    """Every word that a caption can hold, sorted; the tokenizer gives each one token."""
    extra = ["a", "an", ",", "and", "the", "of", "shape", "color", "colour", "photo"]
    extra += ["picture", "image", "drawing"]
    phrases = [p for group in POSITION_PHRASES.values() for p in group]
    phrases += [p.replace("{color}", "").replace("{}", "") for p in BACKGROUND_PHRASES]
    words = set(extra) | set(SHAPES) | set(COLOR_NAMES) | set(SIZES) | set(POSITIONS)
    for group in (*SIZE_WORDS.values(), *COLOR_WORDS.values(), phrases):
        for phrase in group:
            words |= set(phrase.split())
    return sorted(words)
