"""The samplers by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from ..checks import refuse, shown
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
from .dpm_general import dpm_multistep, dpm_singlestep
from .dpm_sde import dpmpp_2m_sde, dpmpp_3m_sde, dpmpp_sde
from .euler import euler, euler_ancestral
from .flow import flow_euler, flow_heun
from .heun import heun
from .langevin import annealed_langevin, langevin, predictor_corrector
from .linear_multistep import deis, ipndm, lms
from .pndm import plms, pndm
from .unipc import unipc

__all__ = ["SAMPLERS", "SamplerInfo", "get", "names", "resolve"]


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


SAMPLERS: dict[str, SamplerInfo] = {
    info.name: info
    for info in (
        SamplerInfo(
            "euler",
            euler,
            "first order, one network run per step, optional churn",
            "Karras et al. 2022, arXiv 2206.00364",
            "linspace",
            "EulerDiscreteScheduler",
        ),
        SamplerInfo(
            "euler_ancestral",
            euler_ancestral,
            "first order with fresh noise in every step",
            "Song et al. 2021, arXiv 2011.13456",
            "linspace",
            "EulerAncestralDiscreteScheduler",
        ),
        SamplerInfo(
            "heun",
            heun,
            "second order, two network runs per step",
            "Karras et al. 2022, arXiv 2206.00364",
            "linspace",
            "HeunDiscreteScheduler",
        ),
        SamplerInfo(
            "dpmpp_2m",
            dpmpp_2m,
            "second order multistep, one network run per step: good at 15-25 steps",
            "Lu et al. 2022, arXiv 2211.01095",
            "karras",
            "DPMSolverMultistepScheduler",
        ),
        SamplerInfo(
            "ddim",
            ddim,
            "first order, deterministic at eta = 0",
            "Song, Meng & Ermon 2021, arXiv 2010.02502",
            "leading",
            "DDIMScheduler",
        ),
        SamplerInfo(
            "ddpm",
            ddpm,
            "the ancestral sampler of the training process; needs many steps",
            "Ho, Jain & Abbeel 2020, arXiv 2006.11239",
            "leading",
            "DDPMScheduler",
        ),
        SamplerInfo(
            "plms",
            plms,
            "fourth order multistep, n+1 network runs: Stable Diffusion's first sampler",
            "Liu et al. 2022, arXiv 2202.09778",
            "leading",
            "PNDMScheduler",
        ),
        SamplerInfo(
            "pndm",
            pndm,
            "plms started by three Runge-Kutta steps of four network runs each",
            "Liu et al. 2022, arXiv 2202.09778",
            "leading",
            "PNDMScheduler",
        ),
        SamplerInfo(
            "lms",
            lms,
            "multistep with slopes of up to four steps, one network run per step",
            "Zhang & Chen 2022, arXiv 2204.13902",
            "linspace",
            "LMSDiscreteScheduler",
        ),
        SamplerInfo(
            "dpm_2",
            dpm_2,
            "second order midpoint rule, two network runs per step",
            "Lu et al. 2022, arXiv 2206.00927",
            "linspace",
            "KDPM2DiscreteScheduler",
        ),
        SamplerInfo(
            "dpm_2_ancestral",
            dpm_2_ancestral,
            "dpm_2 with fresh noise in every step",
            "Lu et al. 2022, arXiv 2206.00927",
            "linspace",
            "KDPM2AncestralDiscreteScheduler",
        ),
        SamplerInfo(
            "dpmpp_2s_ancestral",
            dpmpp_2s_ancestral,
            "second order with fresh noise, two network runs per step",
            "Lu et al. 2022, arXiv 2211.01095",
            "karras",
            "KDPM2AncestralDiscreteScheduler",
        ),
        SamplerInfo(
            "dpmpp_sde",
            dpmpp_sde,
            "second order on the reverse SDE, two network runs per step",
            "Lu et al. 2022, arXiv 2211.01095",
            "karras",
            "EulerDiscreteScheduler",
        ),
        SamplerInfo(
            "dpmpp_2m_sde",
            dpmpp_2m_sde,
            "second order multistep on the reverse SDE, one network run per step",
            "Lu et al. 2022, arXiv 2211.01095",
            "karras",
            "DPMSolverMultistepScheduler",
        ),
        SamplerInfo(
            "dpmpp_3m_sde",
            dpmpp_3m_sde,
            "third order multistep on the reverse SDE, one network run per step",
            "Lu et al. 2022, arXiv 2211.01095",
            "exponential",
            "EulerDiscreteScheduler",
        ),
        SamplerInfo(
            "dpm_multistep",
            dpm_multistep,
            "DPM-Solver of order 1 to 3 with one network run per step",
            "Lu et al. 2022, arXiv 2211.01095",
            "linspace",
            "DPMSolverMultistepScheduler",
        ),
        SamplerInfo(
            "dpm_singlestep",
            dpm_singlestep,
            "DPM-Solver of order 1 to 3 in groups of as many steps",
            "Lu et al. 2022, arXiv 2206.00927",
            "linspace",
            "DPMSolverSinglestepScheduler",
        ),
        SamplerInfo(
            "unipc",
            unipc,
            "predictor and corrector in one network run per step: good at 5-15 steps",
            "Zhao et al. 2023, arXiv 2302.04867",
            "linspace",
            "UniPCMultistepScheduler",
        ),
        SamplerInfo(
            "deis",
            deis,
            "multistep with a polynomial in log sigma, one network run per step",
            "Zhang & Chen 2022, arXiv 2204.13902",
            "linspace",
            "DEISMultistepScheduler",
        ),
        SamplerInfo(
            "ipndm",
            ipndm,
            "multistep with the fixed weights of equal steps",
            "Zhang & Chen 2022, arXiv 2204.13902",
            "linspace",
            "EulerDiscreteScheduler",
        ),
        SamplerInfo(
            "lcm",
            lcm,
            "for latent consistency models: 1 to 8 steps with fresh noise",
            "Luo et al. 2023, arXiv 2310.04378",
            "trailing",
            "LCMScheduler",
        ),
        SamplerInfo(
            "tcd",
            tcd,
            "for trajectory consistency models: 1 to 8 steps, noise by eta",
            "Zheng et al. 2024, arXiv 2402.19159",
            "trailing",
            "TCDScheduler",
        ),
        SamplerInfo(
            "flow_euler",
            flow_euler,
            "euler in the time of a flow, for flow matching models",
            "Lipman et al. 2023, arXiv 2210.02747",
            "linspace",
            "EulerDiscreteScheduler",
        ),
        SamplerInfo(
            "flow_heun",
            flow_heun,
            "heun in the time of a flow, for flow matching models",
            "Lipman et al. 2023, arXiv 2210.02747",
            "linspace",
            "EulerDiscreteScheduler",
        ),
        SamplerInfo(
            "langevin",
            langevin,
            "unadjusted Langevin dynamics, one update per noise level",
            "Roberts & Tweedie 1996, Bernoulli 2(4)",
            "linspace",
            "EulerDiscreteScheduler",
        ),
        SamplerInfo(
            "annealed_langevin",
            annealed_langevin,
            "several Langevin updates at each noise level",
            "Song & Ermon 2019, arXiv 1907.05600",
            "linspace",
            "EulerDiscreteScheduler",
        ),
        SamplerInfo(
            "predictor_corrector",
            predictor_corrector,
            "reverse diffusion steps with Langevin corrections in between",
            "Song et al. 2021, arXiv 2011.13456",
            "linspace",
            "EulerDiscreteScheduler",
        ),
        SamplerInfo(
            "euler_cfg_pp",
            euler_cfg_pp,
            "euler with CFG++: guidance 0 to 1, unconditional noise",
            "Chung et al. 2024, arXiv 2406.08070",
            "linspace",
            "EulerDiscreteScheduler",
        ),
        SamplerInfo(
            "euler_ancestral_cfg_pp",
            euler_ancestral_cfg_pp,
            "euler_ancestral with CFG++",
            "Chung et al. 2024, arXiv 2406.08070",
            "linspace",
            "EulerAncestralDiscreteScheduler",
        ),
        SamplerInfo(
            "ddim_cfg_pp",
            ddim_cfg_pp,
            "ddim with CFG++",
            "Chung et al. 2024, arXiv 2406.08070",
            "leading",
            "DDIMScheduler",
        ),
        SamplerInfo(
            "dpmpp_2m_cfg_pp",
            dpmpp_2m_cfg_pp,
            "dpmpp_2m with CFG++, one network run per step",
            "Chung et al. 2024, arXiv 2406.08070",
            "karras",
            "EulerDiscreteScheduler",
        ),
        SamplerInfo(
            "dpmpp_2s_ancestral_cfg_pp",
            dpmpp_2s_ancestral_cfg_pp,
            "dpmpp_2s_ancestral with CFG++, two network runs per step",
            "Chung et al. 2024, arXiv 2406.08070",
            "karras",
            "EulerAncestralDiscreteScheduler",
        ),
    )
}


def names() -> tuple[str, ...]:
    """The names of all samplers."""
    return tuple(SAMPLERS)


def get(name: str) -> SamplerInfo:
    """The sampler of that name.

    Raises:
        InvalidRequestError: There is none; the hint gives the nearest names.
    """
    info = SAMPLERS.get(name) if isinstance(name, str) else None
    if info is None:
        from difflib import get_close_matches  # a millisecond that only this error needs

        close = get_close_matches(shown(name).lower(), SAMPLERS, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(close)}?" if close else None
        refuse("sampler", name, f"are {', '.join(SAMPLERS)} or a function", hint=hint)
    return info


def resolve(sampler: str | Callable[..., Any]) -> tuple[str, Callable[..., Any]]:
    """(name, function) of a registered name or of the caller's own function."""
    if callable(sampler):
        return getattr(sampler, "__name__", type(sampler).__name__), sampler
    info = get(sampler)
    return info.name, info.function
