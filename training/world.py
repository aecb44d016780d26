"""The world of tiny-shapes: which pictures exist, how they are drawn, which ones are held out.

One picture is 64x64 and shows one shape on a plain background. Only NumPy is used here, because the
reader, the evaluation and the package's tests share these constants without torch.

Coordinates run from -1 (left, top) to 1 (right, bottom); a shape's radius `r` is in the same unit.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

PICTURE_SIZE = 64
SHAPES = ("circle", "square", "triangle", "cross", "heart", "star")
COLORS = {
    "red": (220, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 220),
    "yellow": (245, 220, 50),
    "orange": (245, 135, 30),
    "purple": (130, 45, 170),
    "white": (250, 250, 250),
    "black": (20, 20, 20),
}
COLOR_NAMES = tuple(COLORS)
# The two radius ranges are far apart: a reader (and a network) tells them with certainty.
SIZES = {"small": (0.38, 0.42), "large": (0.56, 0.60)}
OFFSET = 0.38  # how far off the centre a shape sits; a large one then just stays inside
POSITIONS = {
    "center": (0, 0),
    "left": (-1, 0),
    "right": (1, 0),
    "top": (0, -1),
    "bottom": (0, 1),
}
POSITION_JITTER = 0.02


@dataclass(frozen=True)
class Scene:
    """One picture in words and numbers: names from the tables above, `x`, `y`, `r` in [-1, 1]."""

    shape: str
    color: str
    background: str
    size: str
    position: str
    x: float
    y: float
    r: float


def is_held_out(shape: str, color: str, background: str) -> bool:
    """Whether no training picture shows this (shape, colour, background) triple.

    One triple in eleven, spread evenly: every pair of attributes is still seen in training.
    """
    k = 7 * SHAPES.index(shape) + 3 * COLOR_NAMES.index(color) + 5 * COLOR_NAMES.index(background)
    return k % 11 == 4


def held_out_triples() -> list[tuple[str, str, str]]:
    """All (shape, colour, background) triples that training never shows."""
    return [
        (s, c, b)
        for s in SHAPES
        for c in COLOR_NAMES
        for b in COLOR_NAMES
        if c != b and is_held_out(s, c, b)
    ]


def make_scene(
    rng: random.Random, shape: str, color: str, background: str, size: str, position: str
) -> Scene:
    """A scene with these attributes; radius and exact place are drawn from their narrow ranges."""
    dx, dy = POSITIONS[position]
    jitter = POSITION_JITTER
    return Scene(
        shape,
        color,
        background,
        size,
        position,
        x=OFFSET * dx + rng.uniform(-jitter, jitter),
        y=OFFSET * dy + rng.uniform(-jitter, jitter),
        r=rng.uniform(*SIZES[size]),
    )


def random_scene(rng: random.Random, held_out: bool = False) -> Scene:
    """A uniformly random scene, from the held-out triples or from all the others."""
    while True:
        color, background = rng.sample(COLOR_NAMES, 2)
        shape = rng.choice(SHAPES)
        if is_held_out(shape, color, background) == held_out:
            size, position = rng.choice(tuple(SIZES)), rng.choice(tuple(POSITIONS))
            return make_scene(rng, shape, color, background, size, position)


def signed_distance(shape: str, x: np.ndarray, y: np.ndarray, r: float | np.ndarray) -> np.ndarray:
    """Signed distance from the points (x, y) to the outline of a centred shape (negative inside).

    Exact near the outline, which is all that anti-aliasing needs. Star and heart follow Inigo
    Quilez' 2D distance functions (https://iquilezles.org/articles/distfunctions2d/).

    Args:
        shape: One of `SHAPES`.
        x, y: Coordinates relative to the shape's centre, any broadcastable shape.
        r: Radius, a scalar or broadcastable.
    """
    ax, ay = np.abs(x), np.abs(y)
    if shape == "circle":
        return np.sqrt(x * x + y * y) - r
    if shape == "square":
        return np.maximum(ax, ay) - 0.88 * r
    if shape == "triangle":
        return np.maximum(y - 0.8 * r, (1.8 * ax - 0.95 * (y + r)) / 2.0353)
    if shape == "cross":
        return np.minimum(
            np.maximum(ax - r, ay - 0.34 * r),
            np.maximum(ay - r, ax - 0.34 * r),
        )
    if shape == "heart":
        return _heart(ax, y, r)
    if shape == "star":
        return _star(ax, -y, r)
    raise ValueError(f"shape: expected one of {SHAPES}, got {shape!r}")


def _heart(ax, y, r):
    scale = 1.7 * r
    px, py = ax / scale, 0.56 - y / scale
    lobe = np.sqrt((px - 0.25) ** 2 + (py - 0.75) ** 2) - np.sqrt(2) / 4
    m = 0.5 * np.maximum(px + py, 0)
    side = np.sqrt(np.minimum(px**2 + (py - 1) ** 2, (px - m) ** 2 + (py - m) ** 2))
    return np.where(px + py > 1, lobe, side * np.sign(px - py)) * scale


def _star(px, py, r, inner=0.45):
    kx, ky = 0.809016994, -0.587785252  # cos 36 deg, -sin 36 deg: fold the plane onto one spike
    d = 2 * np.maximum(kx * px + ky * py, 0)
    px, py = px - d * kx, py - d * ky
    d = 2 * np.maximum(-kx * px + ky * py, 0)
    px, py = px + d * kx, py - d * ky
    px, py = np.abs(px), py - r
    bx, by = inner * -ky, inner * kx - 1
    h = np.clip((px * bx + py * by) / (bx * bx + by * by), 0, r)
    return np.sqrt((px - bx * h) ** 2 + (py - by * h) ** 2) * np.sign(py * bx - px * by)


def pixel_centers(n: int = PICTURE_SIZE) -> np.ndarray:
    """Coordinates of the n pixel centres along one axis, float32 [n]."""
    return ((np.arange(n, dtype=np.float32) + 0.5) * 2 / n - 1).astype(np.float32)


def coverage(shape: str, x: float, y: float, r: float, n: int = PICTURE_SIZE) -> np.ndarray:
    """How much of each pixel the shape covers, float32 [n, n] in [0, 1]."""
    g = pixel_centers(n)
    d = signed_distance(shape, g[None, :] - np.float32(x), g[:, None] - np.float32(y), r)
    return np.clip(0.5 - d * (n / 2), 0, 1).astype(np.float32)


def draw(scene: Scene, n: int = PICTURE_SIZE) -> np.ndarray:
    """Draws a scene, anti-aliased. Returns uint8 [n, n, 3]."""
    a = coverage(scene.shape, scene.x, scene.y, scene.r, n)[..., None]
    ink = np.asarray(COLORS[scene.color], np.float32)
    paper = np.asarray(COLORS[scene.background], np.float32)
    return np.round(paper + a * (ink - paper)).astype(np.uint8)
