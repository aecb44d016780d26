"""Stage 1: trains the autoencoder on drawn pictures.

    python training/train_vae.py [--minutes 12] [--work training/work]

Run the same command again to continue after an interruption.
"""

from __future__ import annotations

import argparse
import math
import random
from pathlib import Path

import numpy as np
import torch

from networks import make_vae
from parallel import GradientAverage, TimedSchedule, launch, learning_rate_factor, log, save
from world import draw, random_scene

BATCH = 8  # pictures per process and step
PEAK_RATE = 1.5e-3
# Far more than Stable Diffusion's 1e-6: nearly Gaussian, noise-tolerant latents make the
# denoiser's work easy, and pictures this simple stay readable.
KL_WEIGHT = 2e-3


def pictures(rng: random.Random, count: int) -> torch.Tensor:
    """Random training pictures, float32 [count, 3, 64, 64] in [-1, 1], channels last."""
    stack = np.stack([draw(random_scene(rng)) for _ in range(count)])
    return torch.from_numpy(stack).permute(0, 3, 1, 2).float() / 127.5 - 1


def vae_loss(vae, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
    """L1 + edges + squares + KL to the unit Gaussian. Returns the loss and its parts."""
    mean, log_variance = vae.quant_conv(vae.encoder(x)).float().chunk(2, 1)
    log_variance = log_variance.clamp(-30, 20)
    z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
    d = vae.decoder(vae.post_quant_conv(z)).float() - x
    absolute, square = d.abs().mean(), (d**2).mean()
    edge = d.diff(dim=-1).abs().mean() + d.diff(dim=-2).abs().mean()
    kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
    loss = absolute + 0.5 * edge + 2 * square + KL_WEIGHT * kl
    return loss, {"l1": absolute.item(), "mse": square.item(), "kl": kl.item()}


def train(rank: int, processes: int, options: argparse.Namespace) -> None:
    """One process of the training run; process 0 writes the checkpoints and the log."""
    checkpoint = options.work / "vae_train.pt"
    torch.manual_seed(0)  # every process starts from the same weights
    vae = make_vae().train()
    parameters = list(vae.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=1e-4)
    step, seconds_done = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        vae.load_state_dict(state["vae"])
        optimizer.load_state_dict(state["optimizer"])
        step, seconds_done = state["step"], state["seconds"]
        log(f"continuing at step {step}")
    torch.manual_seed(10 * step + rank)
    rng = random.Random(10 * step + rank)
    average = GradientAverage(parameters, processes)
    schedule = TimedSchedule(options.minutes, seconds_done)
    progress, parts = schedule.progress(), []
    while progress < 1:
        for group in optimizer.param_groups:
            group["lr"] = PEAK_RATE * learning_rate_factor(progress)
        x = pictures(rng, BATCH).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bf16):
            loss, part = vae_loss(vae, x)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        progress = average(schedule.progress())
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        parts.append(part)
        if rank == 0 and (step % 100 == 0 or progress >= 1):
            mean = {k: sum(p[k] for p in parts) / len(parts) for k in part}
            seen = step * BATCH * processes
            log(
                f"step {step} pictures {seen} l1 {mean['l1']:.4f} kl {mean['kl']:.3f} "
                f"psnr {10 * math.log10(4 / mean['mse']):.2f} dB "
                f"{seen / schedule.seconds():.0f} pictures/s done {progress:.0%}"
            )
            parts = []
            state = {"vae": vae.state_dict(), "optimizer": optimizer.state_dict()}
            save(checkpoint, step=step, seconds=schedule.seconds(), **state)
    if rank == 0:
        save(options.work / "vae.pt", vae=vae.state_dict())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    parser.add_argument("--minutes", type=float, default=12, help="training time of all runs")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--bf16", action="store_true", help="bfloat16 arithmetic where it is safe")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    launch(train, options.processes, options)


if __name__ == "__main__":
    main()
