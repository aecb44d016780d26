"""How much noise the scheduler classes of diffusers draw, which may be more than is used."""

from __future__ import annotations

from ..tracing.program import Program
from ..tracing.stepwise import StepByStep
from .config import Plan

__all__ = ["unused_draws"]

# These draw in every step, also where the noise weighs nothing (the step to 0).
_EVERY_STEP = ("euler_ancestral", "dpmpp_2m_sde")
# These do when the option is on.
_WITH_OPTION = {"ddim": "eta", "dpm_multistep": "noise", "dpm_singlestep": "noise"}


def unused_draws(plan: Plan, program: Program | StepByStep) -> int:
    """Draws that the class makes after the last one that `program` makes.

    They change no picture, only the state of the caller's generator.
    """
    if isinstance(program, StepByStep):  # no class of diffusers is one
        return 0
    options = dict(plan.options)
    if plan.sampler == "ddpm":
        made = sum(timestep > 0 for timestep in plan.timesteps)
    elif plan.sampler in _EVERY_STEP or options.get(_WITH_OPTION.get(str(plan.sampler), "")):
        made = plan.schedule.step_count
    else:
        made = program.draw_count
    return max(made - program.draw_count, 0)
