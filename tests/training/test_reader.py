"""The reader judges the model, so it is judged itself: on right, wrong and damaged pictures."""

import random
from dataclasses import replace

import numpy as np
import pytest

from reader import ATTRIBUTES, read, score
from world import COLOR_NAMES, SHAPES, draw, make_scene, random_scene


def scene(shape="circle", color="red", background="blue", size="large", position="center"):
    return make_scene(random.Random(0), shape, color, background, size, position)


def test_reads_drawn_pictures():
    rng = random.Random(5)
    for k in range(100):
        s = random_scene(rng, held_out=k % 2 == 0)
        assert score(s, draw(s)) == dict.fromkeys((*ATTRIBUTES, "all"), True), s


def test_reads_noisy_pictures():
    rng, noise = random.Random(6), np.random.default_rng(6)
    for _ in range(50):
        s = random_scene(rng)
        picture = draw(s) + noise.normal(0, 8, (64, 64, 3))
        assert score(s, np.clip(picture, 0, 255).astype(np.uint8))["all"], s


@pytest.mark.parametrize(
    ("attribute", "wrong"),
    [
        ("shape", "square"),
        ("color", "orange"),
        ("background", "purple"),
        ("size", "small"),
        ("position", "left"),
    ],
)
def test_one_wrong_attribute_is_named(attribute, wrong):
    right = score(scene(), draw(scene(**{attribute: wrong})))
    assert [a for a in ATTRIBUTES if not right[a]] == [attribute]
    assert not right["all"]


def test_only_what_was_asked_for_is_judged():
    right = score({"shape": "circle", "color": "red"}, draw(scene()))
    assert right == {"shape": True, "color": True, "count": True, "all": True}


def test_two_shapes_are_two():
    small = scene(size="small")
    picture = draw(replace(small, x=-0.5))
    picture[:, 32:] = draw(replace(small, x=0.5))[:, 32:]
    assert read(picture).count == 2


def test_a_smudge_is_no_shape():
    x = np.linspace(-1, 1, 64)
    blob = np.exp(-3 * (x[None, :] ** 2 + 4 * x[:, None] ** 2))[..., None]
    paper, ink = np.array([40, 80, 220]), np.array([220, 40, 40])
    reading = read((paper + blob * (ink - paper)).astype(np.uint8))
    assert reading.background == "blue"
    assert reading.shape is None


@pytest.mark.parametrize("value", [0, 100, 255])
def test_empty_pictures_have_no_shape(value):
    reading = read(np.full((64, 64, 3), value, np.uint8))
    assert reading.count == 0
    assert reading.shape is None


def test_random_noise_has_no_shape():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    assert read(noise).shape is None


def test_every_shape_color_pair_can_be_told_apart():
    for k, shape in enumerate(SHAPES):
        for color in COLOR_NAMES:
            background = COLOR_NAMES[(COLOR_NAMES.index(color) + 1 + k) % len(COLOR_NAMES)]
            if background != color:
                s = scene(shape, color, background, size="small")
                assert score(s, draw(s))["all"], s


def test_rejects_what_is_not_a_picture():
    with pytest.raises(ValueError, match="uint8"):
        read(np.zeros((64, 64, 3), np.float32))
