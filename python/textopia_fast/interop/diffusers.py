"""Scheduler classes under diffusers' names, for unmodified diffusers pipelines.

    from textopia_fast.interop import diffusers as tx_diffusers

    pipe.scheduler = tx_diffusers.EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)

Constructor arguments, `from_config`, `set_timesteps`, `scale_model_input`, `step`, `add_noise` and
the attributes that pipelines read are those of diffusers; latents and timesteps are torch tensors
on any device, noise comes from the caller's generators in diffusers' order. `SCHEDULERS` has the
names. `from_a1111` makes a scheduler from the name that A1111's web UI gives a sampler.
`accelerate(pipe)` gives a pipeline of optimum-onnx the native loop.

What is not supported raises UnsupportedModelError or UnsupportedParameterError.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from inspect import Parameter, Signature
from threading import RLock
from typing import Any

from ..errors import InvalidRequestError
from ..schedulers.classes import CLASSES
from .accelerate import accelerate
from .class_facts import OFFERED, TWO_RUNS, class_keys, set_timesteps_signature, step_signature
from .scheduler import SchedulerOutput, TracedScheduler

__all__ = ["A1111", "SCHEDULERS", "SchedulerOutput", "TracedScheduler", "accelerate", "from_a1111"]

SCHEDULERS: tuple[str, ...] = (*OFFERED, "ScoreSdeVeScheduler")

_KARRAS = {"use_karras_sigmas": True}
_SDE = {"algorithm_type": "sde-dpmsolver++"}
_SPACED = {"timestep_spacing": "linspace"}
_TRAILING = {"timestep_spacing": "trailing"}
_SAMPLERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Euler": ("EulerDiscreteScheduler", {}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
    "Heun": ("HeunDiscreteScheduler", {}),
    "LMS": ("LMSDiscreteScheduler", {}),
    "DPM2": ("KDPM2DiscreteScheduler", {}),
    "DPM2 a": ("KDPM2AncestralDiscreteScheduler", {}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", {}),
    "DPM++ 2M SDE": ("DPMSolverMultistepScheduler", _SDE),
    "DPM++ 2M SDE Heun": ("DPMSolverMultistepScheduler", {**_SDE, "solver_type": "heun"}),
    "DPM++ SDE": ("DPMSolverSinglestepScheduler", {}),
    "DDIM": ("DDIMScheduler", {}),
    "DDPM": ("DDPMScheduler", {}),
    "DEIS": ("DEISMultistepScheduler", {}),
    "PLMS": ("PNDMScheduler", {"skip_prk_steps": True}),
    "LCM": ("LCMScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", {}),
}
_SCHEDULES: dict[str, dict[str, Any]] = {
    "Karras": _KARRAS,
    "Exponential": {**_SPACED, "use_exponential_sigmas": True},
    "Beta": {**_SPACED, "use_beta_sigmas": True},
    "SGM Uniform": _TRAILING,
    "Simple": _TRAILING,
}


def _a1111() -> dict[str, tuple[str, dict[str, Any]]]:
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for name, (class_name, settings) in _SAMPLERS.items():
        if class_name not in SCHEDULERS:
            continue
        found[name] = (class_name, settings)
        for schedule, extra in _SCHEDULES.items():
            if set(extra) <= set(CLASSES[class_name].defaults):
                found[f"{name} {schedule}"] = (class_name, {**settings, **extra})
    return found


# A1111's name -> (class, settings).
A1111: Mapping[str, tuple[str, dict[str, Any]]] = _a1111()


def from_a1111(name: str, config: Mapping[str, Any]) -> TracedScheduler:
    """The scheduler that A1111's web UI means by `name`, on the config of a model.

    Raises:
        InvalidRequestError: The name is not in `A1111`.
        UnsupportedModelError: A setting that it stands for, or one of the config, is not supported.
    """
    if name not in A1111:
        close = get_close_matches(str(name), A1111, n=3)
        raise InvalidRequestError(
            f"from_a1111: {name!r} is not known, allowed are {', '.join(A1111)}.",
            hint=f"Did you mean {' or '.join(close)}?" if close else None,
            param="name",
        )
    class_name, settings = A1111[name]
    scheduler: TracedScheduler = _scheduler_class(class_name).from_config(config, **settings)
    return scheduler


_lock = RLock()


def __getattr__(name: str) -> Any:
    if name in SCHEDULERS:
        return _scheduler_class(name)
    if name == "SchedulerMixin":  # diffusers looks for it beside a class that it is to load
        for base in _bases()[1:2]:
            return base
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *SCHEDULERS})


def _scheduler_class(name: str) -> type[Any]:
    with _lock:
        if name not in globals():
            globals()[name] = _make_class(name)
        made: type[Any] = globals()[name]
        return made


def _make_class(name: str) -> type[Any]:
    if name == "ScoreSdeVeScheduler":
        from .score_sde import ScoreSdeVe

        return type(name, (ScoreSdeVe, *_bases()[1:]), {"__module__": __name__})
    rules = CLASSES[name]
    keys = class_keys(name, rules)
    stepped, spaced = step_signature(name), set_timesteps_signature(name)

    def __init__(self: TracedScheduler, **settings: Any) -> None:  # noqa: N807
        TracedScheduler.__init__(self, **settings)

    def step(self: TracedScheduler, *args: Any, **kwargs: Any) -> Any:
        """One step: the latents after it from the network's output and the latents before it."""
        return self._step(**_bound(f"{name}.step", stepped, args, kwargs))

    def set_timesteps(self: TracedScheduler, *args: Any, **kwargs: Any) -> None:
        """Plans a run: `timesteps`, and where it has them `sigmas`."""
        self._set_timesteps(**_bound(f"{name}.set_timesteps", spaced, args, kwargs))

    me = Parameter("self", Parameter.POSITIONAL_OR_KEYWORD)
    settings = [Parameter(k, Parameter.KEYWORD_ONLY, default=v) for k, v in keys.items()]
    __init__.__signature__ = Signature([me, *settings])  # type: ignore[attr-defined]
    step.__signature__ = Signature([me, *stepped.parameters.values()])  # type: ignore[attr-defined]
    set_timesteps.__signature__ = Signature(  # type: ignore[attr-defined]
        [me, *spaced.parameters.values()]
    )
    members: dict[str, Any] = {
        "__init__": __init__,
        "__module__": __name__,
        "__doc__": f"diffusers' {name} on a traced program (sampler {rules.sampler!r}).",
        "_rules": rules,
        "_keys": keys,
        "order": 2 if name in TWO_RUNS else 1,
        "set_timesteps": set_timesteps,
        "step": step,
    }
    for method in (__init__, set_timesteps, step):
        method.__qualname__ = f"{name}.{method.__name__}"
    return type(name, _bases(), members)


def _bases() -> tuple[type, ...]:
    """With diffusers' own base classes where it is installed: its pipelines look for them."""
    try:
        from diffusers.configuration_utils import ConfigMixin
        from diffusers.schedulers.scheduling_utils import SchedulerMixin
    except ImportError:
        return (TracedScheduler,)
    return (TracedScheduler, SchedulerMixin, ConfigMixin)


def _bound(
    where: str, signature: Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise InvalidRequestError(
            f"{where}: {error}, allowed are {', '.join(signature.parameters)}.",
            param=next((k for k in kwargs if k not in signature.parameters), None),
        ) from None
    bound.apply_defaults()
    return bound.arguments
