"""`callback_on_step_end`: diffusers' contract on the native loop.

diffusers calls back after every entry of its `timesteps`, that is after every network evaluation,
and lets the callback replace the variables of the loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .arrays import to_float32
from .checks import check_number, refuse
from .errors import InvalidRequestError

__all__ = ["Interrupted", "LoopState", "RunningCall", "StepEnd", "StepEndCallback", "check_names"]

StepEndCallback = Callable[[Any, int, float, dict[str, Any]], Mapping[str, Any]]
_PARAM = "callback_on_step_end"


class Interrupted(Exception):  # noqa: N818 - not an error: the call goes on with `latents`
    """A callback has set `_interrupt`: what is left of the loop is not run."""

    def __init__(self, latents: np.ndarray) -> None:
        super().__init__("interrupted by a callback")
        self.latents = latents


class RunningCall:
    """One call of a pipeline as its callbacks see it; everything else is the pipeline's.

    A callback may set `_interrupt` to end the loop with the latents that there are, and
    `_guidance_scale` for the evaluations that follow (1 or less: without the negative half).

    Attributes:
        owner: The pipeline.
    """

    def __init__(self, owner: Any, guidance_scale: float, num_timesteps: int, has_cfg: bool):
        self.owner = owner
        self._guidance_scale = self._asked_guidance = guidance_scale
        self._num_timesteps = num_timesteps
        self._has_cfg = has_cfg
        self._interrupt = False

    @property
    def guidance_scale(self) -> float:
        """The guidance of the evaluations that follow; the largest where it differs by step."""
        return self._guidance_scale

    @property
    def do_classifier_free_guidance(self) -> bool:
        """Whether they run the negative half, too."""
        is_asked = self._guidance_scale == self._asked_guidance
        return self._has_cfg and (is_asked or self._guidance_scale > 1)

    @property
    def num_timesteps(self) -> int:
        """How often the network runs, and the callback after it."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """Whether a callback has ended the loop."""
        return self._interrupt

    def __getattr__(self, name: str) -> Any:
        return getattr(self.owner, name)


class LoopState:
    """The variables of the loop that callbacks may ask for, beside the latents.

    Attributes:
        values: By diffusers' name. Under guidance they have the rows of the negative half first,
            but for `negative_prompt_embeds`, which is those rows alone (None without guidance) and
            which nothing reads any more.
        inputs: The input of the graph that a variable goes to.
    """

    def __init__(
        self,
        inputs: Mapping[str, str],
        cond: Mapping[str, np.ndarray],
        uncond: Mapping[str, np.ndarray] | None,
        **others: np.ndarray | None,
    ) -> None:
        """`others`: variables that are no inputs of the graph."""
        self.inputs = {name: port for name, port in inputs.items() if port in cond}
        halves = [cond] if uncond is None else [uncond, cond]
        self.values: dict[str, Any] = {
            name: np.concatenate([half[port] for half in halves])
            for name, port in self.inputs.items()
        }
        for name, value in others.items():
            if value is not None:
                self.values[name] = np.concatenate([value for _ in halves])
        negative = None if uncond is None else uncond[inputs["prompt_embeds"]].copy()
        self.values["negative_prompt_embeds"] = negative


def check_names(names: Any, allowed: Sequence[str]) -> tuple[str, ...]:
    """`callback_on_step_end_tensor_inputs` as a tuple of names of `allowed`."""
    param = f"{_PARAM}_tensor_inputs"
    found = ("latents",) if names is None else names
    if isinstance(found, str) or not isinstance(found, Sequence):
        refuse(param, names, f"is a list of {', '.join(allowed)}")
    for name in found:
        if name not in allowed:
            refuse(param, name, f"are {', '.join(allowed)}")
    return tuple(found)


class StepEnd:
    """The `on_evaluation` of `sample` that speaks to a `callback_on_step_end`.

    Args:
        function: The callback.
        call: What it gets first.
        names: The variables that it asked for.
        state: Those variables.
        timesteps: One per evaluation.
        scales: One per evaluation: the latents that diffusers shows, divided by the program's.
    """

    def __init__(
        self,
        function: StepEndCallback,
        call: RunningCall,
        names: tuple[str, ...],
        state: LoopState,
        timesteps: Sequence[float],
        scales: Sequence[float],
    ) -> None:
        self._function = function
        self._call = call
        self._names = names
        self._inputs = state.inputs
        self._values = state.values
        self._timesteps = timesteps
        self._scales = scales

    def __call__(self, index: int, latents: np.ndarray) -> dict[str, Any]:
        scale = np.float32(self._scales[index])
        shown = latents * scale
        call, values = self._call, {**self._values, "latents": shown.copy()}
        before = {
            name: None if value is None else value.copy() for name, value in self._values.items()
        }
        guidance = call.guidance_scale
        handed = {name: values[name] for name in self._names}
        returned = self._function(call, index, self._timesteps[index], handed)
        if not isinstance(returned, Mapping):
            refuse(_PARAM, returned, "is a function that returns a dictionary")
        now = _replaced(returned, "latents", values["latents"])
        if now.shape != shown.shape:
            _fail_shape("latents", now, shown.shape)
        changes: dict[str, Any] = {}
        if not np.array_equal(now, shown):
            changes["latents"] = now / scale
        if call.guidance_scale != guidance:
            given = check_number(f"{_PARAM}: guidance_scale", call.guidance_scale)
            changes["guidance"] = given if call.do_classifier_free_guidance else 1.0
        cond: dict[str, np.ndarray] = {}
        uncond: dict[str, np.ndarray] = {}
        for name, old in before.items():
            if old is None:
                continue
            new = self._values[name] = _replaced(returned, name, self._values[name])
            if name != "negative_prompt_embeds" and not np.array_equal(new, old):
                negative, positive = self._halves(name, new, len(shown), old.shape[1:])
                if name in self._inputs:
                    cond[self._inputs[name]] = positive
                    if negative is not None:
                        uncond[self._inputs[name]] = negative
                elif name == "mask":
                    changes["mask"] = np.broadcast_to(positive, shown.shape)
        if cond:
            changes |= {"cond": cond, "uncond": uncond}
        if call.interrupt:
            raise Interrupted(now)
        return changes

    def _halves(
        self, name: str, value: np.ndarray, images: int, row: tuple[int, ...]
    ) -> tuple[np.ndarray | None, np.ndarray]:
        """(negative, positive) rows; without guidance there is no negative half."""
        guided = self._call.do_classifier_free_guidance
        allowed = (2 * images,) if guided else (images, 1)
        if value.shape[1:] != row or len(value) not in allowed:
            _fail_shape(name, value, (allowed[0], *row))
        return (value[:images], value[images:]) if guided else (None, value)


def _replaced(returned: Mapping[str, Any], name: str, present: np.ndarray) -> np.ndarray:
    return to_float32(returned[name], f"{_PARAM}: {name}") if name in returned else present


def _fail_shape(name: str, value: np.ndarray, allowed: tuple[int, ...]) -> None:
    raise InvalidRequestError(
        f"{_PARAM}: {name} came back with the shape {value.shape}, allowed is {allowed}.",
        param=_PARAM,
    )
