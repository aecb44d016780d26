"""Judges the exported model through the package's public interface, sampler by sampler. No torch.

    python training/evaluate.py [--count 200] [--samplers dpmpp_2m euler ddim annealed_langevin]
                                [--guidance 4] [--sheet training/samples.png] [--inpaint]

Every prompt names all attributes of a held-out scene, one whose (shape, colour, background) triple
no training picture showed; the reader then says which attributes of the picture are right. With
--inpaint a shape in a drawn scene is replaced by another instead, see inpaint.py.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np
from PIL import Image

import inpaint
from captions import random_caption
from reader import ATTRIBUTES, read, score
from world import Scene, random_scene

SAMPLERS = ("dpmpp_2m", "euler", "ddim", "annealed_langevin")
BATCH = 50
README_PROMPT = "a red circle on a blue background"


def held_out_prompts(count: int, seed: int = 11) -> tuple[list[Scene], list[str]]:
    """Random held-out scenes and captions that name all their attributes."""
    rng = random.Random(seed)
    scenes = [random_scene(rng, held_out=True) for _ in range(count)]
    return scenes, [random_caption(rng, s, full=True) for s in scenes]


def accuracies(expected: list, pictures: np.ndarray) -> dict[str, float]:
    """Share of the pictures, uint8 [N, H, W, 3], with each attribute (and with all) right."""
    right = [score(e, p) for e, p in zip(expected, pictures, strict=True)]
    return {a: float(np.mean([r[a] for r in right])) for a in right[0]}


def table(shares: dict[str, float]) -> str:
    """One line: attribute names with percentages."""
    return "  ".join(f"{name} {100 * share:5.1f} %" for name, share in shares.items())


def write_sheet(path: Path, pictures: np.ndarray, columns: int = 12) -> None:
    """Writes the pictures, uint8 [N, H, W, 3], as one contact sheet; an unfilled row is dropped."""
    rows, n = len(pictures) // columns, pictures.shape[1]
    grid = pictures[: rows * columns].reshape(rows, columns, n, n, 3)
    sheet = grid.transpose(0, 2, 1, 3, 4).reshape(rows * n, columns * n, 3)
    Image.fromarray(sheet).save(path, optimize=True)


def generate(pipe, prompts: list[str], sampler: str, options: argparse.Namespace) -> np.ndarray:
    """Pictures for the prompts, uint8 [N, H, W, 3]."""
    pictures = []
    extra = {"schedule": options.schedule, "sampler_options": options.sampler_options}
    extra = {name: value for name, value in extra.items() if value is not None}
    for start in range(0, len(prompts), BATCH):
        out = pipe(
            prompts[start : start + BATCH],
            num_inference_steps=options.steps,
            guidance_scale=options.guidance,
            sampler=sampler,
            seed=options.seed + start,
            output_type="np",
            **extra,
        )
        pictures.append(np.round(255 * np.clip(out.images, 0, 1)).astype(np.uint8))
    return np.concatenate(pictures)


def print_misses(scenes: list[Scene], prompts: list[str], pictures: np.ndarray) -> None:
    """One line for each picture with a wrong attribute."""
    for scene, prompt, picture in zip(scenes, prompts, pictures, strict=True):
        right = score(scene, picture)
        if not right["all"]:
            wrong = [a for a in ATTRIBUTES if not right[a]]
            print(f"    {', '.join(wrong)} wrong: {prompt!r} -> {read(picture)}")


def inpaint_all(pipe, sampler: str, options: argparse.Namespace) -> dict[str, float]:
    """Share of the inpainting cases with each attribute right."""
    cases, right = inpaint.make_cases(options.count), []
    for start in range(0, len(cases), BATCH):
        some = cases[start : start + BATCH]
        seed = options.seed + start
        pictures = inpaint.paint(pipe, some, options.steps, options.guidance, seed, sampler)
        right += [inpaint.judge(c, p) for c, p in zip(some, pictures, strict=True)]
    return {a: float(np.mean([r[a] for r in right])) for a in right[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tiny-shapes", help="a bundled name or a directory")
    parser.add_argument("--samplers", nargs="+", default=SAMPLERS)
    parser.add_argument("--count", type=int, default=200, help="held-out prompts per sampler")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--schedule", help="karras, ...; the model's own timesteps by default")
    parser.add_argument("--sampler-options", type=json.loads, help="JSON object for the sampler")
    parser.add_argument("--sheet", type=Path, help="PNG of the first sampler's first 60 pictures")
    parser.add_argument("--inpaint", action="store_true", help="replace a shape inside of a mask")
    parser.add_argument("--misses", action="store_true", help="also list every wrong picture")
    options = parser.parse_args()

    import textopia_fast as tx  # not at the top: the helpers above are useful without it

    pipe = tx.Pipeline.from_pretrained(options.model)
    if options.inpaint:
        for sampler in options.samplers:
            print(f"{sampler:16} {table(inpaint_all(pipe, sampler, options))}", flush=True)
        return
    scenes, prompts = held_out_prompts(options.count)
    for sampler in options.samplers:
        start = time.perf_counter()
        pictures = generate(pipe, prompts, sampler, options)
        seconds = time.perf_counter() - start
        print(f"{sampler:16} {table(accuracies(scenes, pictures))}  ({seconds:.1f} s)", flush=True)
        if options.misses:
            print_misses(scenes, prompts, pictures)
        if options.sheet and sampler == options.samplers[0]:
            write_sheet(options.sheet, pictures[:60])
    expected = {"shape": "circle", "color": "red", "background": "blue"}
    pictures = generate(pipe, [README_PROMPT] * 50, options.samplers[0], options)
    print(f"50 x {README_PROMPT!r}: {table(accuracies([expected] * 50, pictures))}")


if __name__ == "__main__":
    main()
