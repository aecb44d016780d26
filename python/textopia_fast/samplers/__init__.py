"""Samplers: written once in the letters of their papers, traced into programs that run natively."""

from __future__ import annotations

from . import schedules
from .program import Program
from .registry import SAMPLERS, SamplerInfo, get, names
from .scheduler_config import Plan, from_config, trace_plan
from .schedules import Schedule, TrainingTable
from .stationary import langevin_program
from .trace import seen_sigmas, trace

__all__ = [
    "SAMPLERS",
    "Plan",
    "Program",
    "SamplerInfo",
    "Schedule",
    "TrainingTable",
    "from_config",
    "get",
    "langevin_program",
    "names",
    "schedules",
    "seen_sigmas",
    "trace",
    "trace_plan",
]
