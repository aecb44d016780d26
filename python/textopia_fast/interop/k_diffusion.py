"""k-diffusion's functions: `sample_*` for every sampler that is here, and `get_sigmas_*`.

    from textopia_fast.interop import k_diffusion as K

    x = K.sample_dpmpp_2m(model, noise * sigmas[0], sigmas, extra_args={...}, callback=show)

`model(x, sigma * ones[B], **extra_args)` returns the denoised latents, [B, ...]; arrays are NumPy's
or torch's and stay on their device and in their dtype. With a `textopia_fast.Denoiser` as `model`
the loop runs natively; `extra_args` are then those of `textopia_fast.sample`: `cond`, `uncond`,
`guidance`, `noise`, `cancel`, `deadline`, and for networks that take timesteps `table`, the
TrainingTable that gives them.

Noise: `noise_sampler(sigma, sigma_next)` where the function takes one, else independent unit normal
noise of torch's or NumPy's global generator (k-diffusion's SDE samplers default to a Brownian tree;
pass a `BrownianTreeNoiseSampler` to get that). The callback sees the latents that the network saw
first in the step; of the native loop, those before the step (which churn has not touched yet).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import Parameter, Signature
from math import inf
from typing import Any, NamedTuple

import numpy as np

from ..checks import check_integer, check_number, refuse
from ..denoiser import Denoiser
from ..errors import InvalidRequestError
from ..samplers import schedules
from ..samplers.dpm_fast import fast_orders
from ..tracing.registry import SAMPLERS
from .brownian import BrownianTreeNoiseSampler
from .k_runs import KRun, run_adaptive, run_callable, run_native

_CHURN = {"s_churn": 0.0, "s_tmin": 0.0, "s_tmax": inf, "s_noise": 1.0}
_ANCESTRAL = {"eta": 1.0, "s_noise": 1.0, "noise_sampler": None}


class KFunction(NamedTuple):
    """One function: the sampler behind it and its arguments after `disable`."""

    sampler: str
    options: dict[str, Any]


FUNCTIONS: dict[str, KFunction] = {
    "sample_euler": KFunction("euler", _CHURN),
    "sample_euler_ancestral": KFunction("euler_ancestral", _ANCESTRAL),
    "sample_heun": KFunction("heun", _CHURN),
    "sample_dpm_2": KFunction("dpm_2", _CHURN),
    "sample_dpm_2_ancestral": KFunction("dpm_2_ancestral", _ANCESTRAL),
    "sample_lms": KFunction("lms", {"order": 4}),
    "sample_dpmpp_2s_ancestral": KFunction("dpmpp_2s_ancestral", _ANCESTRAL),
    "sample_dpmpp_sde": KFunction("dpmpp_sde", {**_ANCESTRAL, "r": 0.5}),
    "sample_dpmpp_2m": KFunction("dpmpp_2m", {}),
    "sample_dpmpp_2m_sde": KFunction("dpmpp_2m_sde", {**_ANCESTRAL, "solver_type": "midpoint"}),
    "sample_dpmpp_3m_sde": KFunction("dpmpp_3m_sde", _ANCESTRAL),
}
FUNCTIONS = {name: made for name, made in FUNCTIONS.items() if made.sampler in SAMPLERS}

__all__ = [
    "BrownianTreeNoiseSampler",
    "get_sigmas_exponential",
    "get_sigmas_karras",
    "get_sigmas_polyexponential",
    "get_sigmas_vp",
    "sample_dpm_adaptive",
    "sample_dpm_fast",
    *FUNCTIONS,
]


def get_sigmas_karras(
    n: int, sigma_min: float, sigma_max: float, rho: float = 7.0, device: Any = "cpu"
) -> Any:
    """n noise levels by Karras et al. 2022, equation 5, and 0.

    float32 [n+1]: a torch tensor on `device`, or with device=None a NumPy array; so for all four.
    """
    return _levels(schedules.karras_sigmas(n, sigma_min, sigma_max, rho), device)


def get_sigmas_exponential(n: int, sigma_min: float, sigma_max: float, device: Any = "cpu") -> Any:
    """n noise levels even in log sigma, and 0."""
    return _levels(schedules.exponential_sigmas(n, sigma_min, sigma_max), device)


def get_sigmas_polyexponential(
    n: int, sigma_min: float, sigma_max: float, rho: float = 1.0, device: Any = "cpu"
) -> Any:
    """n noise levels polynomial in log sigma, and 0."""
    return _levels(schedules.polyexponential_sigmas(n, sigma_min, sigma_max, rho), device)


def get_sigmas_vp(
    n: int,
    beta_d: float = 19.9,
    beta_min: float = 0.1,
    eps_s: float = 1e-3,
    device: Any = "cpu",
) -> Any:
    """n noise levels of the continuous variance-preserving schedule, and 0."""
    return _levels(schedules.vp_sigmas(n, beta_d, beta_min, eps_s), device)


def sample_dpm_fast(
    model: Any,
    x: Any,
    sigma_min: float,
    sigma_max: float,
    n: int,
    extra_args: Mapping[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], Any] | None = None,
    disable: bool | None = None,
    eta: float = 0.0,
    s_noise: float = 1.0,
    noise_sampler: Callable[[Any, Any], Any] | None = None,
) -> Any:
    """k-diffusion's sample_dpm_fast: n network runs from sigma_max to sigma_min, both > 0.

    The steps are even in log sigma, of third order but for the last or last two. Everything else is
    as for the other functions.

    Raises:
        InvalidRequestError: Shapes, dtypes, options or noise levels that do not fit.
    """
    orders = fast_orders(check_integer("n", n, 1, 100_000))
    low, high = check_number("sigma_min", sigma_min), check_number("sigma_max", sigma_max)
    if not 0.0 < low < high:
        refuse("sigma_min", sigma_min, f"are numbers with 0 < sigma_min < sigma_max = {high}")
    levels = schedules.exponential_sigmas(len(orders) + 1, low, high)[:-1]
    given = KRun(
        name="sample_dpm_fast",
        sampler="dpm_fast",
        options={"orders": orders, "eta": eta, "s_noise": s_noise},
        x=x,
        sigmas=levels,
        extra_args=dict(extra_args or {}),
        callback=callback,
        disable=disable,
        noise_sampler=noise_sampler,
    )
    return _run(model, given)


def _levels(values: tuple[float, ...], device: Any) -> Any:
    levels = np.asarray(values, np.float32)
    if device is None:
        return levels
    from .torch_noise import import_torch

    return import_torch().from_numpy(levels).to(device)


def sample_dpm_adaptive(
    model: Any,
    x: Any,
    sigma_min: float,
    sigma_max: float,
    extra_args: Mapping[str, Any] | None = None,
    callback: Callable[[dict[str, Any]], Any] | None = None,
    disable: bool | None = None,
    order: int = 3,
    rtol: float = 0.05,
    atol: float = 0.0078,
    h_init: float = 0.05,
    pcoeff: float = 0.0,
    icoeff: float = 1.0,
    dcoeff: float = 0.0,
    accept_safety: float = 0.81,
    eta: float = 0.0,
    s_noise: float = 1.0,
    noise_sampler: Callable[[Any, Any], Any] | None = None,
    return_info: bool = False,
) -> Any:
    """k-diffusion's sample_dpm_adaptive: DPM-Solver-12 or 23, whose steps follow from the error.

    x: float [B, ...] at the noise level sigma_max. Runs step by step from Python, with a Denoiser
    over native network runs. callback gets k-diffusion's dictionary, after each step. Returns the
    sample at sigma_min, like x; with return_info also a dictionary of 'steps', 'nfe', 'n_accept',
    'n_reject'. Source: Lu et al. 2022, arXiv 2206.00927.

    Raises:
        InvalidRequestError: Shapes, dtypes, options or noise levels that do not fit.
    """
    given = KRun(
        name="sample_dpm_adaptive",
        sampler="dpm_adaptive",
        options={
            "order": order,
            "rtol": rtol,
            "atol": atol,
            "h_init": h_init,
            "pcoeff": pcoeff,
            "icoeff": icoeff,
            "dcoeff": dcoeff,
            "accept_safety": accept_safety,
            "eta": eta,
            "s_noise": s_noise,
        },
        x=x,
        sigmas=(sigma_max, sigma_min),
        extra_args=dict(extra_args or {}),
        callback=callback,
        disable=disable,
        noise_sampler=noise_sampler,
    )
    _check_model("sample_dpm_adaptive", model)
    result, counts = run_adaptive(model, given)
    return (result, counts) if return_info else result


def _check_model(name: str, model: Any) -> None:
    if not callable(model) and not isinstance(model, Denoiser):
        raise InvalidRequestError(
            f"{name}: model is {type(model).__name__}, allowed are a function and a Denoiser.",
            param="model",
        )


def _sample(
    name: str,
    model: Any,
    x: Any,
    sigmas: Any,
    extra_args: Mapping[str, Any] | None,
    callback: Callable[[dict[str, Any]], Any] | None,
    disable: bool | None,
    noise_sampler: Callable[[Any, Any], Any] | None = None,
    **options: Any,
) -> Any:
    made = FUNCTIONS[name]
    given = KRun(
        name=name,
        sampler=made.sampler,
        options=options,
        x=x,
        sigmas=sigmas,
        extra_args=dict(extra_args or {}),
        callback=callback,
        disable=disable,
        noise_sampler=noise_sampler,
    )
    return _run(model, given)


def _run(model: Any, given: KRun) -> Any:
    if isinstance(model, Denoiser):
        return run_native(model, given)
    _check_model(given.name, model)
    return run_callable(model, given)


def _make(name: str) -> Callable[..., Any]:
    made = FUNCTIONS[name]
    kind = Parameter.POSITIONAL_OR_KEYWORD
    optional = {"extra_args": None, "callback": None, "disable": None, **made.options}
    signature = Signature(
        [
            *(Parameter(needed, kind) for needed in ("model", "x", "sigmas")),
            *(Parameter(key, kind, default=value) for key, value in optional.items()),
        ]
    )

    def function(*args: Any, **kwargs: Any) -> Any:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise InvalidRequestError(
                f"{name}: {error}, allowed are {', '.join(signature.parameters)}.",
                param=next((k for k in kwargs if k not in signature.parameters), None),
            ) from None
        bound.apply_defaults()
        return _sample(name, **bound.arguments)

    function.__name__ = function.__qualname__ = name
    function.__signature__ = signature  # type: ignore[attr-defined]
    function.__doc__ = f"""k-diffusion's {name}: {SAMPLERS[made.sampler].summary}.

    x: float [B, ...] at the noise level sigmas[0]. sigmas: n+1 levels, high to low. callback gets
    a dictionary of 'x', 'i', 'sigma', 'sigma_hat', 'denoised' in every step. disable: no progress
    bar. Returns the sample, like x. Source: {SAMPLERS[made.sampler].paper}.

    Raises:
        InvalidRequestError: Shapes, dtypes, options or noise levels that do not fit.
    """
    return function


for _name in FUNCTIONS:
    globals()[_name] = _make(_name)
