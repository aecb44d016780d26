"""What every competitor of this task is given: the same network, start, schedule and guidance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from tests.support.cheap_unet import TOKENS, cheap_unet

import textopia_fast as tx

WIDTH = 8
STEPS = 50
GUIDANCE = 7.5
SEED = 3
# integer timesteps, so that a scheduler's table and k-diffusion's interpolation agree exactly
SD = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "timestep_spacing": "leading",
    "steps_offset": 1,
}
CLASSES = {
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {"clip_sample": False}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
}


class Loop(NamedTuple):
    """A competitor: `setup()` is what a call does before its loop, `loop` takes what it returns."""

    setup: Callable[[], Any]
    loop: Callable[[Any], np.ndarray]


@dataclass(frozen=True)
class Case:
    sampler: str
    images: int
    steps: int = STEPS

    @property
    def scheduler_class(self) -> str:
        return CLASSES[self.sampler][0]

    @property
    def scheduler_config(self) -> dict:
        return SD | CLASSES[self.sampler][1]

    def plan(self) -> tx.samplers.Plan:
        config = {"_class_name": self.scheduler_class} | self.scheduler_config
        return tx.samplers.from_config(config, self.steps)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (self.images, 4, 64, 64)

    @cached_property
    def text(self) -> np.ndarray:
        """float32 [2 * images, TOKENS, WIDTH]: the negative half, then the positive."""
        shape = (2 * self.images, TOKENS, WIDTH)
        return np.random.default_rng(1).standard_normal(shape, np.float32)

    @cached_property
    def graph(self) -> bytes:
        return cheap_unet(WIDTH)
