"""Samplers: written once in the letters of their papers, traced into programs that run natively."""

from __future__ import annotations

import importlib
import pkgutil

from .. import schedules
from ..schedulers.config import Plan, from_config, trace_plan
from ..schedules.levels import Schedule, TrainingTable
from ..tracing.program import Program
from ..tracing.registry import SAMPLERS, STEP_BY_STEP, SamplerInfo, get, names
from ..tracing.stepwise import StepByStep, step_by_step
from ..tracing.trace import seen_sigmas, trace
from .stationary import langevin_program

__all__ = [
    "SAMPLERS",
    "STEP_BY_STEP",
    "Plan",
    "Program",
    "SamplerInfo",
    "Schedule",
    "StepByStep",
    "TrainingTable",
    "from_config",
    "get",
    "langevin_program",
    "names",
    "schedules",
    "seen_sigmas",
    "step_by_step",
    "trace",
    "trace_plan",
]

for _file in pkgutil.iter_modules(__path__):  # every sampler enters itself in the registry
    importlib.import_module(f"{__name__}.{_file.name}")
