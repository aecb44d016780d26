"""The drawn world: what it contains, what is held out, how exactly it is drawn and described."""

import random

import numpy as np
import pytest

from captions import plain_caption, random_caption, vocabulary_words
from world import (
    COLOR_NAMES,
    COLORS,
    POSITIONS,
    SHAPES,
    SIZES,
    coverage,
    draw,
    held_out_triples,
    is_held_out,
    make_scene,
    random_scene,
    signed_distance,
)


def test_about_a_tenth_is_held_out_and_every_pair_is_still_seen():
    triples = held_out_triples()
    total = len(SHAPES) * len(COLOR_NAMES) * (len(COLOR_NAMES) - 1)
    assert 0.08 < len(triples) / total < 0.12
    for shape in SHAPES:
        for color in COLOR_NAMES:
            others = [b for b in COLOR_NAMES if b != color]
            assert sum(is_held_out(shape, color, b) for b in others) <= 1


@pytest.mark.parametrize("held_out", [False, True])
def test_random_scenes_keep_to_their_side(held_out):
    rng = random.Random(3)
    for _ in range(200):
        s = random_scene(rng, held_out)
        assert is_held_out(s.shape, s.color, s.background) == held_out
        assert s.color != s.background


def test_the_documented_prompt_is_trained():
    assert not is_held_out("circle", "red", "blue")


@pytest.mark.parametrize("shape", SHAPES)
def test_distance_is_negative_inside_and_one_pixel_wide_at_the_edge(shape):
    g = np.linspace(-1, 1, 401)
    d = signed_distance(shape, g[None, :], g[:, None], 0.5)
    assert d[200, 200] < 0 < d[0, 0]
    # |grad d| = 1 almost everywhere near the outline: anti-aliased edges are one pixel wide.
    dy, dx = np.gradient(d, g, g)
    slope = np.hypot(dx, dy)[np.abs(d) < 0.02]
    assert np.median(slope) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("position", POSITIONS)
def test_the_largest_shape_stays_inside_the_picture(shape, position):
    scene = make_scene(random.Random(0), shape, "red", "blue", "large", position)
    cover = coverage(shape, scene.x, scene.y, SIZES["large"][1])
    edge = np.concatenate([cover[0], cover[-1], cover[:, 0], cover[:, -1]])
    assert np.count_nonzero(edge) <= 16  # a large shape may touch the border, not lie across it
    assert 0.04 < cover.mean() < 0.35


def test_draw_uses_the_named_colors():
    picture = draw(make_scene(random.Random(0), "square", "green", "black", "large", "center"))
    assert picture.shape == (64, 64, 3)
    assert picture.dtype == np.uint8
    assert tuple(picture[32, 32]) == COLORS["green"]
    assert tuple(picture[0, 0]) == COLORS["black"]


def test_captions_use_only_known_words_and_full_ones_name_everything():
    rng, known = random.Random(1), set(vocabulary_words())
    for _ in range(500):
        scene = random_scene(rng)
        caption = random_caption(rng, scene, full=True)
        assert set(caption.replace(",", " ,").split()) <= known
        assert scene.shape in caption
        assert caption == caption.lower()


def test_plain_caption():
    caption = plain_caption("circle", "orange", "blue", "small", "top")
    assert caption == "a small orange circle at the top on a blue background"
