"""Inpainting with the exported model, judged by the reader: one shape replaced by another.

Each case is a drawn scene; the mask is a rectangle around its shape, and the prompt asks for a
shape of another kind and colour there. The saved picture must show that one, nothing else, and
every pixel outside of the mask as it was. Run by `evaluate.py --inpaint`.
"""

from __future__ import annotations

import io
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image

from captions import plain_caption
from reader import score
from world import COLOR_NAMES, PICTURE_SIZE, SHAPES, Scene, draw, make_scene, random_scene

CELL = 8  # pixels per latent: a mask that cuts a cell in two would be rounded there
MARGIN = 3  # pixels around the shapes, old and new


@dataclass(frozen=True)
class Case:
    """`before` is drawn; `after` is asked for inside of `box` (left, top, right, bottom)."""

    before: Scene
    after: Scene
    box: tuple[int, int, int, int]

    @property
    def prompt(self) -> str:
        """Names all attributes of the new shape."""
        s = self.after
        return plain_caption(s.shape, s.color, s.background, s.size, s.position)

    @property
    def mask(self) -> np.ndarray:
        """uint8 [H, W]: 255 where to paint."""
        mask = np.zeros((PICTURE_SIZE, PICTURE_SIZE), np.uint8)
        left, top, right, bottom = self.box
        mask[top:bottom, left:right] = 255
        return mask


def make_cases(count: int, seed: int = 23) -> list[Case]:
    """Random scenes, each with another shape of another colour in the same place."""
    rng = random.Random(seed)
    return [_case(rng) for _ in range(count)]


def judge(case: Case, picture: Image.Image) -> dict[str, bool]:
    """As of `reader.score`, and "outside": no pixel outside of the mask has changed.

    The picture is judged as it comes back from a PNG file.
    """
    file = io.BytesIO()
    picture.save(file, "PNG")
    pixels = np.asarray(Image.open(file))
    right = score(case.after, pixels)
    outside = case.mask == 0
    right["outside"] = bool(np.array_equal(pixels[outside], draw(case.before)[outside]))
    return right


def paint(pipe, cases: list[Case], steps: int, guidance: float, seed: int, sampler: str):
    """The pictures of all cases."""
    return pipe(
        [case.prompt for case in cases],
        image=[Image.fromarray(draw(case.before)) for case in cases],
        mask_image=[Image.fromarray(case.mask) for case in cases],
        num_inference_steps=steps,
        guidance_scale=guidance,
        sampler=sampler,
        seed=seed,
    ).images


def _case(rng: random.Random) -> Case:
    before = random_scene(rng)
    while True:
        shape, color = rng.choice(SHAPES), rng.choice(COLOR_NAMES)
        if shape != before.shape and color not in (before.color, before.background):
            break
    place = (before.size, before.position)
    after = make_scene(rng, shape, color, before.background, *place)
    covered = np.argwhere(np.any(draw(before) != draw(after), axis=-1))
    low = np.maximum(covered.min(0) - MARGIN, 0) // CELL * CELL
    high = np.minimum(-(-(covered.max(0) + 1 + MARGIN) // CELL) * CELL, PICTURE_SIZE)
    return Case(before, after, (int(low[1]), int(low[0]), int(high[1]), int(high[0])))
