"""Reads a tiny-shapes picture without any neural network: the judge of what the model draws.

NumPy only. `read` measures a picture; `score` compares it with the attributes asked for.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from world import (
    COLOR_NAMES,
    COLORS,
    OFFSET,
    PICTURE_SIZE,
    POSITIONS,
    SHAPES,
    SIZES,
    Scene,
    draw,
    random_scene,
    signed_distance,
)

MIN_IOU = 0.8  # a shape counts as drawn when its overlap with the best template is at least this
MAX_COLOR_DISTANCE = 60.0  # Euclidean, in 8-bit RGB; the world's nearest colours are 87 apart
MIN_PIXELS = 24  # smaller specks of colour do not count as a shape
BORDER = 3  # the background is read from a frame this many pixels wide
ATTRIBUTES = ("shape", "color", "size", "position", "background", "count")

_PALETTE = np.array([COLORS[c] for c in COLOR_NAMES], np.float32)


@dataclass(frozen=True)
class Reading:
    """What a picture shows. Names are None where nothing fits; x, y, r are in [-1, 1]."""

    background: str | None
    count: int
    color: str | None = None
    shape: str | None = None
    size: str | None = None
    position: str | None = None
    x: float = 0.0
    y: float = 0.0
    r: float = 0.0
    iou: float = 0.0


def _nearest_colors(rgb: np.ndarray) -> np.ndarray:
    """Index of the nearest palette colour, -1 where none is near. [..., 3] -> int [...]."""
    distance = np.sqrt(((rgb[..., None, :] - _PALETTE) ** 2).sum(-1))
    return np.where(distance.min(-1) <= MAX_COLOR_DISTANCE, distance.argmin(-1), -1)


def _frame(n: int) -> np.ndarray:
    frame = np.ones((n, n), bool)
    frame[BORDER:-BORDER, BORDER:-BORDER] = False
    return frame


def _components(mask: np.ndarray) -> list[np.ndarray]:
    """4-connected components of a boolean mask, largest first."""
    label = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:  # spread the largest label inside each component until nothing changes
        padded = np.pad(label, 1)
        spread = np.maximum.reduce(
            [label, padded[2:, 1:-1], padded[:-2, 1:-1], padded[1:-1, 2:], padded[1:-1, :-2]]
        )
        spread[~mask] = 0
        if np.array_equal(spread, label):
            break
        label = spread
    names, counts = np.unique(label[label > 0], return_counts=True)
    return [label == name for name in names[np.argsort(-counts)]]


@cache
def _extents() -> dict[str, tuple[float, float, float, float]]:
    """Left, right, top and bottom of each shape of radius 1."""
    g = np.linspace(-1.5, 1.5, 601)
    boxes = {}
    for shape in SHAPES:
        inside = signed_distance(shape, g[None, :], g[:, None], 1.0) < 0
        columns, rows = g[inside.any(0)], g[inside.any(1)]
        boxes[shape] = (columns[0], columns[-1], rows[0], rows[-1])
    return boxes


def _fit(cover: np.ndarray) -> tuple[str, float, float, float, float]:
    """The template that overlaps a coverage map best: (shape, x, y, r, IoU).

    Each template starts from the map's bounding box and is refined by a coarse-to-fine search.
    """
    n = cover.shape[0]
    u = 2 / n
    rows, columns = np.nonzero(cover > 0.5)
    x0, x1 = columns.min() * u - 1, (columns.max() + 1) * u - 1
    y0, y1 = rows.min() * u - 1, (rows.max() + 1) * u - 1
    g = (np.arange(n, dtype=np.float32) + 0.5) * u - 1
    best = (SHAPES[0], 0.0, 0.0, 0.0, 0.0)
    for shape, (left, right, top, bottom) in _extents().items():
        r = 0.5 * ((x1 - x0) / (right - left) + (y1 - y0) / (bottom - top))
        x, y = (x0 + x1 - r * (left + right)) / 2, (y0 + y1 - r * (top + bottom)) / 2
        for reach, scales in ((0.8, (0.94, 1, 1.07, 1.15)), (0.35, (0.96, 1, 1.04)), (0.2, (1,))):
            moves = [
                (x + i * reach * u, y + j * reach * u, r * s)
                for i in (-1, 0, 1)
                for j in (-1, 0, 1)
                for s in scales
            ]
            q = np.array(moves, np.float32)[:, :, None, None]
            dx, dy = g[None, None, :] - q[:, 0], g[None, :, None] - q[:, 1]
            t = np.clip(0.5 - signed_distance(shape, dx, dy, q[:, 2]) / u, 0, 1)
            iou = np.minimum(t, cover).sum((1, 2)) / np.maximum(t, cover).sum((1, 2))
            k = int(iou.argmax())
            x, y, r = moves[k]
            if iou[k] > best[4]:
                best = (shape, x, y, r, float(iou[k]))
    return best


def read(rgb: np.ndarray) -> Reading:
    """Reads one picture, uint8 [H, W, 3] with H = W.

    The background is the colour of most of the frame; everything clearly different from it is
    foreground, and each connected piece of foreground of some size counts as one shape. The largest
    piece is named by the median colour of its inside and by the best-fitting template.
    """
    n = rgb.shape[0]
    if rgb.shape != (n, n, 3) or rgb.dtype != np.uint8:
        raise ValueError(f"[read] expected uint8 [n, n, 3], got {rgb.dtype} {list(rgb.shape)}")
    image = rgb.astype(np.float32)
    labels = _nearest_colors(image[_frame(n)])
    known = labels[labels >= 0]
    if not known.size:
        return Reading(None, 0)
    paper_index = int(np.bincount(known).argmax())
    paper = np.median(image[_frame(n)][labels == paper_index], axis=0)
    away = np.sqrt(((image - paper) ** 2).sum(-1))
    pieces = [p for p in _components(away > 45) if p.sum() >= MIN_PIXELS]
    background = COLOR_NAMES[paper_index]
    if not pieces:
        return Reading(background, 0)
    piece = pieces[0]
    inside = piece & (away > 0.8 * np.quantile(away[piece], 0.9))
    ink = np.median(image[inside], axis=0)
    edge = ink - paper
    cover = np.clip(((image - paper) * edge).sum(-1) / max((edge**2).sum(), 1.0), 0, 1)
    cover *= _grow(piece)
    if (cover > 0.5).sum() < MIN_PIXELS:
        return Reading(background, len(pieces))
    shape, x, y, r, iou = _fit(cover)
    ink_index = int(_nearest_colors(ink))
    return Reading(
        background,
        len(pieces),
        color=COLOR_NAMES[ink_index] if ink_index >= 0 else None,
        shape=shape if iou >= MIN_IOU else None,
        size="small" if r < (SIZES["small"][1] + SIZES["large"][0]) / 2 else "large",
        position=_position(x, y),
        x=float(x),
        y=float(y),
        r=float(r),
        iou=iou,
    )


def _grow(mask: np.ndarray) -> np.ndarray:
    """The mask and its neighbours one pixel away, so that soft edges are kept."""
    p = np.pad(mask, 1)
    return mask | p[2:, 1:-1] | p[:-2, 1:-1] | p[1:-1, 2:] | p[1:-1, :-2]


def _position(x: float, y: float) -> str | None:
    cell = tuple(int(np.clip(np.round(v / OFFSET), -1, 1)) for v in (x, y))
    return next((name for name, place in POSITIONS.items() if place == cell), None)


def score(expected: Scene | Mapping[str, str], rgb: np.ndarray) -> dict[str, bool]:
    """Which attributes of a picture are as expected.

    Args:
        expected: A scene, or a mapping from some of shape, color, size, position, background to
            names; attributes it leaves out are not judged. The count must always be 1.
        rgb: uint8 [H, W, 3].

    Returns:
        One boolean per judged attribute, and "all".
    """
    reading = read(rgb)
    if isinstance(expected, Scene):
        expected = {a: getattr(expected, a) for a in ATTRIBUTES if a != "count"}
    right = {a: getattr(reading, a) == expected[a] for a in ATTRIBUTES if a in expected}
    right["count"] = reading.count == 1
    right["all"] = all(right.values())
    return right


def main() -> None:
    """Self-test: draws 300 random scenes and reads them back."""
    rng = random.Random(5)
    scenes = [random_scene(rng, held_out=k % 10 == 0) for k in range(300)]
    wrong = [(s, read(draw(s))) for s in scenes if not score(s, draw(s, PICTURE_SIZE))["all"]]
    print(f"{300 - len(wrong)}/300 pictures read correctly")
    for scene, reading in wrong:
        print(scene, reading)


if __name__ == "__main__":
    main()
