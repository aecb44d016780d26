"""Stage 2: encodes a set of training pictures once, with several captions each.

    python training/make_latents.py [--count 60000] [--work training/work]

Writes latents.pt: latents float16 [N, 4, 8, 8] (posterior means, scaled to unit deviation), token
ids int16 [N, 8, 24], the scenes, and the scale itself.
"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from captions import random_caption
from networks import LATENT_SIZE, MAX_TOKENS, make_vae
from parallel import log, save
from reader import score
from tokenizer import CaptionEncoder, build_tokenizer
from world import draw, random_scene

CAPTIONS = 8  # per picture
BATCH = 64


def load_vae(work: Path):
    """The trained autoencoder, for inference."""
    vae = make_vae().eval()
    vae.load_state_dict(torch.load(work / "vae.pt")["vae"])
    return vae


def to_tensor(rgb: np.ndarray) -> torch.Tensor:
    """uint8 [B, H, W, 3] -> float32 [B, 3, H, W] in [-1, 1]."""
    x = torch.from_numpy(rgb).permute(0, 3, 1, 2).float() / 127.5 - 1
    return x.contiguous(memory_format=torch.channels_last)


def to_pictures(x: torch.Tensor) -> np.ndarray:
    """float32 [B, 3, H, W] in [-1, 1] -> uint8 [B, H, W, 3]."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


@torch.no_grad()
def check_vae(vae, scale: float, count: int = 240) -> None:
    """Logs how many reconstructions of held-out pictures read right, with and without noise."""
    rng = random.Random(77)
    scenes = [random_scene(rng, held_out=True) for _ in range(count)]
    x = to_tensor(np.stack([draw(s) for s in scenes]))
    mean = vae.encode(x).latent_dist.mean
    for noise in (0.0, 0.1, 0.2, 0.3):  # in units of the scaled latents' deviation
        y = to_pictures(vae.decode(mean + noise / scale * torch.randn_like(mean)).sample)
        right = [score(s, picture) for s, picture in zip(scenes, y, strict=True)]
        table = {a: f"{np.mean([r[a] for r in right]):.1%}" for a in right[0]}
        log(f"reconstructions with latent noise {noise}: {table}")


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    parser.add_argument("--count", type=int, default=60000)
    options = parser.parse_args()
    torch.manual_seed(1)
    rng = random.Random(1)
    vae, n, start = load_vae(options.work), options.count, time.time()
    build_tokenizer(options.work / "tokenizer")
    encode = CaptionEncoder(options.work / "tokenizer")
    mean = torch.empty(n, 4, LATENT_SIZE, LATENT_SIZE)
    deviation = torch.empty_like(mean)
    ids = torch.empty(n, CAPTIONS, MAX_TOKENS, dtype=torch.int16)
    scenes = [random_scene(rng) for _ in range(n)]
    for i in range(0, n, BATCH):
        part = scenes[i : i + BATCH]
        posterior = vae.encode(to_tensor(np.stack([draw(s) for s in part]))).latent_dist
        mean[i : i + BATCH], deviation[i : i + BATCH] = posterior.mean, posterior.std
        ids[i : i + BATCH] = torch.tensor(
            [[encode(random_caption(rng, s)) for _ in range(CAPTIONS)] for s in part]
        )
    scale = 1 / mean.std().item()
    log(f"{n} latents in {time.time() - start:.0f} s, scale {scale:.4f}")
    log("mean per channel", [round(v, 3) for v in (scale * mean.mean((0, 2, 3))).tolist()])
    log("deviation per channel", [round(v, 3) for v in (scale * mean.std((0, 2, 3))).tolist()])
    log("posterior deviation", [round(v, 3) for v in (scale * deviation.mean((0, 2, 3))).tolist()])
    check_vae(vae, scale)
    save(
        options.work / "latents.pt",
        mean=(scale * mean).half(),
        ids=ids,
        scale=scale,
        scenes=[asdict(s) for s in scenes],
    )


if __name__ == "__main__":
    main()
