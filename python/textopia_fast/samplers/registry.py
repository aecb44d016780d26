"""The samplers by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..checks import refuse, shown
from ..errors import InvalidRequestError
from .adaptive import dpm_adaptive, rk45
from .cfg_pp import (
    ddim_cfg_pp,
    dpmpp_2m_cfg_pp,
    dpmpp_2s_ancestral_cfg_pp,
    euler_ancestral_cfg_pp,
    euler_cfg_pp,
)
from .consistency import lcm, tcd
from .ddim import ddim, ddpm
from .dpm import dpmpp_2m
from .dpm2 import dpm_2, dpm_2_ancestral, dpmpp_2s_ancestral
from .dpm_fast import dpm_fast
from .dpm_general import dpm_multistep, dpm_singlestep
from .dpm_sde import dpmpp_2m_sde, dpmpp_3m_sde, dpmpp_sde
from .er_sde import er_sde
from .euler import euler, euler_ancestral
from .flow import flow_euler, flow_heun
from .heun import heun
from .langevin import annealed_langevin, langevin, underdamped_langevin
from .linear_multistep import deis, gradient_estimation, ipndm, lms
from .metropolis import mala
from .pndm import plms, pndm
from .predictor_corrector import predictor_corrector
from .probability_flow import probability_flow
from .res import res_multistep
from .restart import restart
from .sa_solver import sa_solver
from .unipc import unipc

__all__ = ["SAMPLERS", "STEP_BY_STEP", "SamplerInfo", "get", "name_of", "names", "resolve"]


class SamplerInfo(NamedTuple):
    """One sampler.

    `schedule` is the timestep spacing that suits it, `diffusers_class` the scheduler class of
    diffusers whose defaults apply when it is used on a scheduler config.
    """

    name: str
    function: Callable[..., Any]
    summary: str
    paper: str
    schedule: str
    diffusers_class: str


def _info(
    function: Callable[..., Any],
    summary: str,
    paper: str,
    schedule: str = "linspace",
    diffusers_class: str = "EulerDiscreteScheduler",
) -> SamplerInfo:
    return SamplerInfo(function.__name__, function, summary, paper, schedule, diffusers_class)


SAMPLERS: dict[str, SamplerInfo] = {
    info.name: info
    for info in (
        _info(
            euler,
            "first order, one network run per step, optional churn",
            "Karras et al. 2022, arXiv 2206.00364",
        ),
        _info(
            euler_ancestral,
            "first order with fresh noise in every step",
            "Song et al. 2021, arXiv 2011.13456",
            diffusers_class="EulerAncestralDiscreteScheduler",
        ),
        _info(
            heun,
            "second order, two network runs per step",
            "Karras et al. 2022, arXiv 2206.00364",
            diffusers_class="HeunDiscreteScheduler",
        ),
        _info(
            dpmpp_2m,
            "second order multistep, one network run per step: good at 15-25 steps",
            "Lu et al. 2022, arXiv 2211.01095",
            "karras",
            "DPMSolverMultistepScheduler",
        ),
        _info(
            ddim,
            "first order, deterministic at eta = 0",
            "Song, Meng & Ermon 2021, arXiv 2010.02502",
            "leading",
            "DDIMScheduler",
        ),
        _info(
            ddpm,
            "the ancestral sampler of the training process; needs many steps",
            "Ho, Jain & Abbeel 2020, arXiv 2006.11239",
            "leading",
            "DDPMScheduler",
        ),
        _info(
            plms,
            "fourth order multistep, n+1 network runs: Stable Diffusion's first sampler",
            "Liu et al. 2022, arXiv 2202.09778",
            "leading",
            "PNDMScheduler",
        ),
        _info(
            pndm,
            "plms started by three Runge-Kutta steps of four network runs each",
            "Liu et al. 2022, arXiv 2202.09778",
            "leading",
            "PNDMScheduler",
        ),
        _info(
            lms,
            "multistep with slopes of up to four steps, one network run per step",
            "Zhang & Chen 2022, arXiv 2204.13902",
            diffusers_class="LMSDiscreteScheduler",
        ),
        _info(
            dpm_2,
            "second order midpoint rule, two network runs per step",
            "Lu et al. 2022, arXiv 2206.00927",
            diffusers_class="KDPM2DiscreteScheduler",
        ),
        _info(
            dpm_2_ancestral,
            "dpm_2 with fresh noise in every step",
            "Lu et al. 2022, arXiv 2206.00927",
            diffusers_class="KDPM2AncestralDiscreteScheduler",
        ),
        _info(
            dpmpp_2s_ancestral,
            "second order with fresh noise, two network runs per step",
            "Lu et al. 2022, arXiv 2211.01095",
            "karras",
            "KDPM2AncestralDiscreteScheduler",
        ),
        _info(
            dpmpp_sde,
            "second order on the reverse SDE, two network runs per step",
            "Lu et al. 2022, arXiv 2211.01095",
            "karras",
        ),
        _info(
            dpmpp_2m_sde,
            "second order multistep on the reverse SDE, one network run per step",
            "Lu et al. 2022, arXiv 2211.01095",
            "karras",
            "DPMSolverMultistepScheduler",
        ),
        _info(
            dpmpp_3m_sde,
            "third order multistep on the reverse SDE, one network run per step",
            "Lu et al. 2022, arXiv 2211.01095",
            "exponential",
        ),
        _info(
            dpm_multistep,
            "DPM-Solver of order 1 to 3 with one network run per step",
            "Lu et al. 2022, arXiv 2211.01095",
            diffusers_class="DPMSolverMultistepScheduler",
        ),
        _info(
            dpm_singlestep,
            "DPM-Solver of order 1 to 3 in groups of as many steps",
            "Lu et al. 2022, arXiv 2206.00927",
            diffusers_class="DPMSolverSinglestepScheduler",
        ),
        _info(
            unipc,
            "predictor and corrector in one network run per step: good at 5-15 steps",
            "Zhao et al. 2023, arXiv 2302.04867",
            diffusers_class="UniPCMultistepScheduler",
        ),
        _info(
            deis,
            "multistep with a polynomial in log sigma, one network run per step",
            "Zhang & Chen 2022, arXiv 2204.13902",
            diffusers_class="DEISMultistepScheduler",
        ),
        _info(
            ipndm,
            "multistep with the fixed weights of equal steps",
            "Zhang & Chen 2022, arXiv 2204.13902",
        ),
        _info(
            gradient_estimation,
            "two-step method that corrects the last slope, one network run per step",
            "Permenter & Yuan 2024, arXiv 2306.04848",
            "karras",
        ),
        _info(
            res_multistep,
            "second order multistep without the midpoint rule, noise by eta",
            "Zhang et al. 2023, arXiv 2308.02157",
            "karras",
        ),
        _info(
            dpm_fast,
            "DPM-Solver of order 3 with three network runs in each step",
            "Lu et al. 2022, arXiv 2206.00927",
            "exponential",
        ),
        _info(
            sa_solver,
            "predictor and corrector on the reverse SDE in one network run per step, noise by tau",
            "Xue et al. 2023, arXiv 2309.05019",
            diffusers_class="SASolverScheduler",
        ),
        _info(
            er_sde,
            "third order multistep on an SDE with little noise, one network run per step",
            "Cui et al. 2023, arXiv 2309.06169",
            "karras",
        ),
        _info(
            restart,
            "heun that goes back to a high noise level once or more on its way",
            "Xu et al. 2023, arXiv 2306.14878",
            "karras",
        ),
        _info(
            lcm,
            "for latent consistency models: 1 to 8 steps with fresh noise",
            "Luo et al. 2023, arXiv 2310.04378",
            "trailing",
            "LCMScheduler",
        ),
        _info(
            tcd,
            "for trajectory consistency models: 1 to 8 steps, noise by eta",
            "Zheng et al. 2024, arXiv 2402.19159",
            "trailing",
            "TCDScheduler",
        ),
        _info(
            flow_euler,
            "euler in the time of a flow, for flow matching models",
            "Lipman et al. 2023, arXiv 2210.02747",
        ),
        _info(
            flow_heun,
            "heun in the time of a flow, for flow matching models",
            "Lipman et al. 2023, arXiv 2210.02747",
        ),
        _info(
            langevin,
            "unadjusted Langevin dynamics, one update per noise level",
            "Roberts & Tweedie 1996, Bernoulli 2(4)",
        ),
        _info(
            annealed_langevin,
            "several Langevin updates at each noise level",
            "Song & Ermon 2019, arXiv 1907.05600",
        ),
        _info(
            predictor_corrector,
            "reverse diffusion steps with Langevin corrections in between",
            "Song et al. 2021, arXiv 2011.13456",
        ),
        _info(
            underdamped_langevin,
            "Langevin dynamics with momentum, several updates at each noise level",
            "Leimkuhler & Matthews 2013, arXiv 1203.5428",
        ),
        _info(
            euler_cfg_pp,
            "euler with CFG++: guidance 0 to 1, unconditional noise",
            "Chung et al. 2024, arXiv 2406.08070",
        ),
        _info(
            euler_ancestral_cfg_pp,
            "euler_ancestral with CFG++",
            "Chung et al. 2024, arXiv 2406.08070",
            diffusers_class="EulerAncestralDiscreteScheduler",
        ),
        _info(
            ddim_cfg_pp,
            "ddim with CFG++",
            "Chung et al. 2024, arXiv 2406.08070",
            "leading",
            "DDIMScheduler",
        ),
        _info(
            dpmpp_2m_cfg_pp,
            "dpmpp_2m with CFG++, one network run per step",
            "Chung et al. 2024, arXiv 2406.08070",
            "karras",
        ),
        _info(
            dpmpp_2s_ancestral_cfg_pp,
            "dpmpp_2s_ancestral with CFG++, two network runs per step",
            "Chung et al. 2024, arXiv 2406.08070",
            "karras",
            "EulerAncestralDiscreteScheduler",
        ),
        _info(
            probability_flow,
            "fourth order, four network runs per step",
            "Song et al. 2021, arXiv 2011.13456",
        ),
    )
}
"""Those that are traced: fixed steps, run natively."""

STEP_BY_STEP: dict[str, SamplerInfo] = {
    info.name: info
    for info in (
        _info(
            dpm_adaptive,
            "adaptive DPM-Solver of orders 1-2 or 2-3, with k-diffusion's controller",
            "Lu et al. 2022, arXiv 2206.00927",
        ),
        _info(
            rk45,
            "probability-flow ODE, adaptive Runge-Kutta 5(4), to a tolerance",
            "Song et al. 2021, arXiv 2011.13456",
        ),
        _info(
            mala,
            "Metropolis-adjusted Langevin, where the density is known",
            "Roberts & Tweedie 1996, Bernoulli 2(4)",
        ),
    )
}
"""Those that decide as they go: run from Python over native network runs (see `step_by_step`)."""


def names() -> tuple[str, ...]:
    """The names of the samplers that are traced."""
    return tuple(SAMPLERS)


def get(name: str) -> SamplerInfo:
    """The sampler of that name, traced or step by step.

    Raises:
        InvalidRequestError: There is none; the hint gives the nearest names.
    """
    known = {**SAMPLERS, **STEP_BY_STEP}
    info = known.get(name) if isinstance(name, str) else None
    if info is None:
        from difflib import get_close_matches  # a millisecond that only this error needs

        close = get_close_matches(shown(name).lower(), known, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(close)}?" if close else None
        refuse("sampler", name, f"are {', '.join(known)} or a function", hint=hint)
    return info


def resolve(sampler: str | Callable[..., Any]) -> tuple[str, Callable[..., Any]]:
    """(name, function) of what can be traced: a registered name, or the caller's own function.

    Raises:
        InvalidRequestError: There is no such name, or its sampler runs step by step.
    """
    name = sampler if isinstance(sampler, str) else None
    info = next((i for i in STEP_BY_STEP.values() if name == i.name or sampler is i.function), None)
    if info is not None:
        raise InvalidRequestError(
            f"sampler: {info.name} runs step by step, allowed for a program are "
            f"{', '.join(SAMPLERS)} or a function.",
            hint="samplers.step_by_step makes what `sample` runs; a pipeline takes the name.",
            param="sampler",
        )
    if callable(sampler):
        return name_of(sampler), sampler
    info = get(sampler)
    return info.name, info.function


def name_of(function: Callable[..., Any]) -> str:
    """What a function is called in messages and results."""
    return getattr(function, "__name__", type(function).__name__)
