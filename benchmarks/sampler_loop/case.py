"""What every competitor of this task is given: network, sampler, levels, seed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

import textopia_fast as tx
from benchmarks.sampler_loop.networks import Network
from textopia_fast.schedulers.classes import CLASSES
from textopia_fast.schedulers.options import class_sampler

STEPS = 50
SEED = 3
SHAPE = (1, 4, 64, 64)
SD = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "timestep_spacing": "leading",
    "steps_offset": 1,
    "clip_sample": False,
}
# Where a sampler is not what its class does by itself.
SETTINGS: dict[str, dict[str, Any]] = {
    "plms": {"skip_prk_steps": True},
    "dpmpp_2m_sde": {"algorithm_type": "sde-dpmsolver++"},
    "dpm_multistep": {"solver_order": 3},
}
ETAS = {"tcd": 0.3}  # the default of diffusers' step
OTHER_CLASSES = {
    "flow_euler": "FlowMatchEulerDiscreteScheduler",
    "flow_heun": "FlowMatchHeunDiscreteScheduler",
}
# Named otherwise in k-diffusion; "" where the same name is another algorithm there.
K_NAMES = {"dpm_multistep": "", "dpm_singlestep": ""}


class Loop(NamedTuple):
    """A competitor. `run()` samples; `bare()` makes only its network runs, as many."""

    run: Callable[[], np.ndarray]
    bare: Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """One sampler on one network, 50 steps on latents [1, 4, 64, 64]."""

    sampler: str
    network: Network = field(repr=False)
    steps: int = STEPS

    @property
    def scheduler_class(self) -> str | None:
        """The class of diffusers that does the same, if there is one."""
        name = OTHER_CLASSES.get(self.sampler) or tx.samplers.get(self.sampler).diffusers_class
        known = name in CLASSES and class_sampler(name, self.config) == self.sampler
        return name if known else None

    @property
    def config(self) -> dict[str, Any]:
        return SD | SETTINGS.get(self.sampler, {})

    @cached_property
    def plan(self) -> tx.samplers.Plan:
        name = self.scheduler_class
        return tx.samplers.from_config(
            {"_class_name": name or "EulerDiscreteScheduler"} | self.config,
            self.steps,
            sampler=None if name else self.sampler,
            eta=ETAS.get(self.sampler, 0.0),
        )

    @cached_property
    def program(self) -> tx.samplers.Program:
        return tx.samplers.trace_plan(self.plan)

    @property
    def network_runs(self) -> int:
        return len(self.program.noise_levels)
