"""Denoising score matching, in the v-parametrisation, on Stable Diffusion's noise schedule.

Forward process (Ho et al. 2020, eq. 4):  z = sqrt(a) x + sqrt(1 - a) e,  e ~ N(0, I), with a = a(t)
the cumulative product of 1 - beta. The network predicts (Salimans and Ho 2022)

    v = sqrt(a) e - sqrt(1 - a) x.

Denoising score matching (Vincent 2011) fits a model s(z, t) to the score of p(z | x), which is
-e / sqrt(1 - a); its minimiser is the score of the marginal p(z). With snr = a / (1 - a), the score
that belongs to a predicted v is s = -(sqrt(a) v + sqrt(1 - a) z) / sqrt(1 - a), z being given, so

    ||v - v*||^2 = ||s - s*||^2 / snr = (snr + 1) ||x - x*||^2 :

every weighted v loss *is* a weighted score-matching loss. We weight the v loss by
(min(snr, 5) + 1) / (snr + 1), a soft form of min-SNR-5 (Hang et al. 2023): in x that is
min(snr, 5) + 1, so nearly noise-free pictures do not drown the noisy ones.
"""

from __future__ import annotations

import torch

STEPS = 1000
BETA_START, BETA_END = 0.00085, 0.012
SNR_CAP = 5.0
HIGH_NOISE_BIAS = 0.7  # t / 1000 = u ** bias: shape and place are decided at high noise


def cumulative_alphas() -> torch.Tensor:
    """a(t) for t = 0 .. 999: the "scaled_linear" schedule, float32 [1000]."""
    beta = torch.linspace(BETA_START**0.5, BETA_END**0.5, STEPS, dtype=torch.float64) ** 2
    return (1 - beta).cumprod(0).float()


def sample_timesteps(count: int) -> torch.Tensor:
    """Stratified random timesteps, int64 [count] in random order: less noisy losses than i.i.d."""
    u = (torch.arange(count) + torch.rand(count)) / count
    t = (STEPS * u**HIGH_NOISE_BIAS).long().clamp(max=STEPS - 1)
    return t[torch.randperm(count)]


def corrupt(x, t, alphas, noise) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Noisy latents z, targets v (both like x [B, 4, h, w]) and loss weights [B]."""
    a = alphas[t].view(-1, 1, 1, 1)
    z = a.sqrt() * x + (1 - a).sqrt() * noise
    v = a.sqrt() * noise - (1 - a).sqrt() * x
    snr = (a / (1 - a)).flatten()
    return z, v, (snr.clamp(max=SNR_CAP) + 1) / (snr + 1)
