"""Stage 3: trains the U-Net and the text encoder together by denoising score matching.

    python training/train_denoiser.py [--minutes 60] [--work training/work]

Run the same command again to continue after an interruption; the budget counts all runs together.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from captions import POSITION_WORDS
from networks import float32_norms, make_text_encoder, make_unet
from objective import corrupt, cumulative_alphas, sample_timesteps
from parallel import GradientAverage, TimedSchedule, launch, learning_rate_factor, log, save
from tokenizer import CaptionEncoder

PEAK_RATE = 2e-3
UNCONDITIONAL = 0.1  # share of captions dropped, for classifier-free guidance
EMA_DECAY = 0.9995
# By the denoising loss alone the text encoder learned "left" in 0.2 M samples but took "right",
# "top", "bottom" and "center" for one another after 0.3 M: once a shape shows, it is nearly as easy
# to denoise wherever it is. So the pooled text must also tell which position the caption names.
POSITION_WEIGHT = 0.1
POSITION_CODES = 1 + len(POSITION_WORDS)
SAVE_EVERY_S = 120


class Data:
    """The encoded pictures of stage 2, dealt out in random order."""

    def __init__(self, work: Path, device: str):
        stored = torch.load(work / "latents.pt")
        self.mean, self.ids = stored["mean"].to(device), stored["ids"].to(device)
        self.end = int(self.ids.max())  # the end token is the last of the vocabulary
        self.empty = torch.full((self.ids.shape[-1],), self.end, device=device)
        self.empty[0] = self.end - 1
        self.device, self.order = device, torch.empty(0, dtype=torch.long)
        known = CaptionEncoder(work / "tokenizer").ids
        self.position_of_token = torch.zeros(self.end + 1, dtype=torch.long, device=device)
        for k, words in enumerate(POSITION_WORDS.values()):
            for word in words:
                self.position_of_token[known[f"{word}</w>"]] = k + 1

    def named_position(self, ids: torch.Tensor) -> torch.Tensor:
        """Which position each caption names, int64 [B]: 0 for none, then as in POSITIONS."""
        return self.position_of_token[ids].amax(-1)

    def batch(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents float32 [B, 4, 8, 8] and token ids int64 [B, T], some of them empty captions."""
        if len(self.order) < count:
            self.order = torch.randperm(len(self.mean), device=self.device)
        pick, self.order = self.order[:count], self.order[count:]
        which = torch.randint(0, self.ids.shape[1], (count,), device=self.device)
        ids = self.ids[pick, which].long()
        ids[torch.rand(count, device=self.device) < UNCONDITIONAL] = self.empty
        return self.mean[pick].float(), ids


class Denoiser(torch.nn.Module):
    """U-Net and text encoder as one module: (z, t, token ids) -> v."""

    def __init__(self, vocabulary_size: int):
        super().__init__()
        self.unet = make_unet()
        self.text = make_text_encoder(vocabulary_size)
        # Fixed orthonormal directions of the pooled text, one for each position and one for none.
        code = torch.empty(POSITION_CODES, self.unet.time_embedding.linear_2.out_features)
        torch.nn.init.orthogonal_(code, generator=torch.Generator().manual_seed(0))
        self.register_buffer("position_code", code, persistent=False)

    def forward(self, z, t, ids) -> tuple[torch.Tensor, torch.Tensor]:
        """(z [B, 4, h, w], t [B], ids [B, T]) -> v [B, 4, h, w], position logits [B, 6]."""
        text = self.text(ids).last_hidden_state
        logits = self.unet.add_embedding(text).float() @ self.position_code.T
        return self.unet(z, t, text, return_dict=False)[0], logits


def train(rank: int, processes: int, options: argparse.Namespace) -> None:
    """One process of the training run; process 0 writes the checkpoints and the log."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    checkpoint = options.work / "denoiser_train.pt"
    data = Data(options.work, device)
    torch.manual_seed(0)  # every process starts from the same weights
    model = float32_norms(Denoiser(data.end + 1)).train().to(device)
    parameters = list(model.parameters())
    average_weights = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(
        parameters, lr=PEAK_RATE, betas=(0.9, 0.99), weight_decay=1e-3, fused=True
    )
    step, seconds_done = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        average_weights = [w.to(device) for w in state["average_weights"]]
        step, seconds_done = state["step"], state["seconds"]
    if rank == 0:
        log(f"{sum(p.numel() for p in parameters)} parameters, starting at step {step}")
    torch.manual_seed(10 * step + rank)
    alphas = cumulative_alphas().to(device)
    average = GradientAverage(parameters, processes)
    schedule = TimedSchedule(options.minutes, seconds_done)
    progress, last_save, sums = schedule.progress(), schedule.seconds(), torch.zeros(5)
    first_step, first_seconds = step, schedule.seconds()

    def write() -> None:
        names = [name for name, _ in model.named_parameters()]
        average_state = dict(zip(names, average_weights, strict=True))
        save(
            checkpoint,
            model=model.state_dict(),
            optimizer=optimizer.state_dict(),
            average_weights=average_weights,
            step=step,
            seconds=schedule.seconds(),
        )
        save(options.work / "denoiser.pt", vocabulary=data.end + 1, state=average_state, step=step)

    while progress < 1:
        for group in optimizer.param_groups:
            group["lr"] = options.rate * learning_rate_factor(progress)
        x, ids = data.batch(options.batch)
        t = sample_timesteps(options.batch).to(device)
        z, v, weight = corrupt(x, t, alphas, torch.randn_like(x))
        with torch.autocast(device, torch.bfloat16, enabled=not options.float32):
            predicted, logits = model(z.contiguous(memory_format=torch.channels_last), t, ids)
        squared = ((predicted.float() - v) ** 2).mean((1, 2, 3))
        loss = (weight * squared).mean()
        position_loss = cross_entropy(logits, data.named_position(ids))
        optimizer.zero_grad(set_to_none=True)
        (loss + POSITION_WEIGHT * position_loss).backward()
        progress = average(schedule.progress())
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(average_weights, parameters, 1 - decay)
        if rank:
            continue
        squared = squared.detach()
        high, low = squared[t > 700].mean(), squared[t < 300].mean()
        parts = (loss, high, low, position_loss, norm)
        sums += torch.tensor([part.item() for part in parts])
        if step % options.log_every == 0:
            loss_mean, high, low, position, norm = (sums / options.log_every).tolist()
            sums.zero_()
            seen = options.batch * processes
            rate = (step - first_step) * seen / (schedule.seconds() - first_seconds)
            log(
                f"step {step} samples {step * seen} loss {loss_mean:.4f} v-mse t>700 {high:.4f} "
                f"t<300 {low:.4f} position {position:.3f} gradient {norm:.2f} "
                f"{rate:.0f} samples/s done {progress:.1%}"
            )
        if schedule.seconds() - last_save > SAVE_EVERY_S:
            write()
            last_save = schedule.seconds()
    if rank == 0:
        write()
        log(f"finished at step {step}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path(__file__).parent / "work")
    parser.add_argument("--minutes", type=float, default=60, help="training time of all runs")
    parser.add_argument("--processes", type=int, default=1 if torch.cuda.is_available() else 2)
    parser.add_argument("--batch", type=int, default=64, help="samples per process and step")
    parser.add_argument("--rate", type=float, default=PEAK_RATE, help="peak learning rate")
    parser.add_argument("--float32", action="store_true", help="no bfloat16 arithmetic")
    parser.add_argument("--log-every", type=int, default=100, help="steps between log lines")
    options = parser.parse_args()
    launch(train, options.processes, options)


if __name__ == "__main__":
    main()
