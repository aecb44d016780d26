"""The noise levels of a diffusers scheduler: timesteps, sigmas, and latents at a level."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..checks import check_integer, check_numbers, refuse
from ..errors import InternalError, InvalidRequestError, UnsupportedParameterError
from ..samplers import Plan, Schedule, TrainingTable, from_config, trace_plan
from ..schedulers.classes import CURVES
from ..schedulers.levels import solver_flow_schedule
from ..schedulers.options import shifted_by
from ..schedules.flow_times import flow_schedule, flow_times
from ..schedules.levels import spaced_scale
from ..tracing.prediction import coefficients
from ..tracing.trace import seen_sigmas
from .scheduler_base import ConfiguredScheduler
from .torch_noise import import_torch

__all__ = ["LeveledScheduler"]

# Families that know noise levels by timestep alone, without `sigmas`.
_BY_TIMESTEP = ("ddim", "ddpm", "lcm", "ipndm")
# Families that tell the network fractions of timesteps, or other levels.
_FRACTIONAL = ("euler", "flow", "edm", "ipndm")


class LeveledScheduler(ConfiguredScheduler):
    """Plans runs; a subclass executes them and says in `_restart` what starts anew."""

    _step_index: int | None
    _begin_index: int | None

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        torch = import_torch()
        self._overrides: dict[str, Any] = {}
        self._shift: dict[str, Any] = {}
        self.num_inference_steps: int | None = None
        told, sigmas = self._levels_of_training()
        self.timesteps = torch.tensor(told, dtype=self._timestep_dtype(torch))
        if self._has_sigmas():
            self.sigmas = torch.tensor(sigmas, dtype=torch.float32)
        self._restart()

    @property
    def init_noise_sigma(self) -> Any:
        """Factor on unit normal noise that makes the first latents."""
        if self._rules.family == "edm":
            return self._plan.schedule.initial_scale
        if self._rules.family != "euler":
            return 1.0
        return spaced_scale(self.sigmas.max(), self.config["timestep_spacing"])

    @property
    def _table(self) -> TrainingTable:
        table = self._plan.schedule.table
        if table is None:
            raise AttributeError(f"{type(self).__name__} has no table of training noise levels")
        return table

    @property
    def shift(self) -> float:
        """How far the times of a flow are shifted."""
        return float({**self._settings(), **self._shift}["shift"])

    def set_shift(self, shift: float) -> None:
        """Says how far the times of a flow are shifted from now on."""
        self._shift = {"shift": shift}

    @property
    def alphas_cumprod(self) -> Any:
        """float32 [num_train_timesteps] tensor: alpha-bar of training."""
        torch = import_torch()
        return torch.tensor(self._table.alpha_bars, dtype=torch.float32)

    @property
    def step_index(self) -> int | None:
        """Position in `timesteps` of the next step; None before the first."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """Position in `timesteps` of the first step, where it was set."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Says where in `timesteps` the loop starts (image-to-image)."""
        if isinstance(begin_index, bool) or not isinstance(begin_index, int) or begin_index < 0:
            raise InvalidRequestError(
                f"set_begin_index: {begin_index!r}, allowed are integers >= 0.", param="begin_index"
            )
        self._begin_index = begin_index

    def _set_timesteps(
        self,
        num_inference_steps: int | None,
        device: Any = None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        num_train_timesteps: int | None = None,
        mu: float | None = None,
        original_inference_steps: int | None = None,
        strength: float = 1.0,
    ) -> None:
        torch = import_torch()
        if self._is_flow():
            self._overrides = self._shift
            schedule = self._times_given(num_inference_steps, timesteps, sigmas, mu)
            if schedule is not None:
                num_inference_steps, timesteps, sigmas = schedule.step_count, None, None
        if sum(given is not None for given in (num_inference_steps, timesteps, sigmas)) != 1:
            raise InvalidRequestError(
                "set_timesteps: exactly one of num_inference_steps, timesteps, sigmas is needed.",
                param="num_inference_steps",
            )
        same_table = num_train_timesteps in (None, self.config["num_train_timesteps"])
        for name, is_fine in (
            ("num_train_timesteps", same_table),
            ("mu", mu is None or self._is_flow()),
            ("strength", strength == 1.0),
            ("sigmas", sigmas is None or self._rules.family == "euler"),
        ):
            if not is_fine:
                raise UnsupportedParameterError(
                    f"{type(self).__name__}.set_timesteps: {name} other than its default is not "
                    "supported.",
                    param=name,
                )
        self._overrides = dict(self._shift)
        if original_inference_steps is not None:
            self._overrides["original_inference_steps"] = original_inference_steps
        count = num_inference_steps
        if timesteps is not None:
            timesteps = _list(timesteps)
            count = len(timesteps)
        if sigmas is not None:
            sigmas = _list(sigmas)
            count = len(sigmas) - 1
        self._given: dict[str, Any] = {"timesteps": timesteps, "sigmas": sigmas}
        if self._is_flow():
            self._given = {"schedule": schedule, "mu": mu}
        self._plan = self._planned(count, **self._given)
        self.num_inference_steps = count
        program = trace_plan(self._plan)
        told = torch.tensor(program.noise_levels, dtype=torch.float64)
        self.timesteps = told.to(self._timestep_dtype(torch)).to(device)
        if self._has_sigmas():
            self.sigmas = torch.tensor(self._listed_sigmas(), dtype=torch.float32)
        seen = seen_sigmas(self._plan.sampler, self._plan.schedule, dict(self._plan.options))
        if len(seen) != len(self.timesteps):
            raise InternalError(f"{type(self).__name__}: {len(seen)} sigmas, {len(told)} runs.")
        self._seen = seen
        scales = coefficients(self._plan.prediction)
        self._frames = [1.0 if self._plan.vp_latents else scales(s).scale_in for s in seen]
        self._restart()

    def index_for_timestep(self, timestep: Any, schedule_timesteps: Any = None) -> int:
        """Position of a timestep; of one that stands there twice, the second."""
        listed = self.timesteps if schedule_timesteps is None else schedule_timesteps
        found = (listed == timestep).nonzero().flatten().tolist()
        if not found:
            raise InvalidRequestError(
                f"{type(self).__name__}: timestep {float(timestep):g} is not in `timesteps`.",
                param="timestep",
            )
        return int(found[1] if len(found) > 1 else found[0])

    def add_noise(self, original_samples: Any, noise: Any, timesteps: Any) -> Any:
        """Latents at the noise level of `timesteps` (of the present step within a loop)."""
        torch = import_torch()
        if self._rules.family in _BY_TIMESTEP or type(self).__name__ == "SASolverScheduler":
            a, b = self._frame_of(timesteps, original_samples)
            return a * original_samples + b * noise
        if self._begin_index is None:
            listed = self.timesteps.to(timesteps.device)
            at = [self.index_for_timestep(t, listed) for t in timesteps]
        else:
            now = self._begin_index if self._step_index is None else self._step_index
            at = [min(now, len(self.sigmas) - 1)] * timesteps.shape[0]
        sigma = _columns(self.sigmas[torch.tensor(at)], original_samples)
        if self._is_flow():
            return (1.0 - sigma) * original_samples + sigma * noise
        if not self._plan.vp_latents:
            return original_samples + noise * sigma
        scale = (1.0 + sigma * sigma) ** -0.5
        return original_samples * scale + noise * (sigma * scale)

    def scale_noise(self, sample: Any, timestep: Any, noise: Any) -> Any:
        """`add_noise` under the name and in the order that pipelines of flows know."""
        return self.add_noise(sample, noise, timestep.reshape(-1))

    def get_velocity(self, sample: Any, noise: Any, timesteps: Any) -> Any:
        """The target of v-prediction: sqrt(alpha_bar)*noise - sqrt(1 - alpha_bar)*sample."""
        a, b = self._frame_of(timesteps, sample)
        return a * noise - b * sample

    def __len__(self) -> int:
        return int(self.config["num_train_timesteps"])

    def _planned(self, count: int | None, **given: Any) -> Plan:
        if count is None:
            refuse("num_inference_steps", None, "are integers >= 1")
        settings = {**self._settings(), "_class_name": type(self).__name__}
        # of the sampler, where step() takes it each time: LMS's order, DPMSolverSDE's s_noise
        options: dict[str, Any] = {k: given.pop(k) for k in ("order", "s_noise") if k in given}
        return from_config(settings, count, sampler_options=options, **given)

    def _settings(self) -> dict[str, Any]:
        known = {k: v for k, v in self.config.items() if k in self._rules.defaults}
        return {**known, **self._overrides}

    def _is_flow(self) -> bool:
        return self._rules.family == "flow" or bool(self.config.get("use_flow_sigmas"))

    def _times_given(
        self, count: int | None, timesteps: Any, sigmas: Any, mu: float | None
    ) -> Schedule | None:
        """The schedule of a flow whose times the caller gives, before they are shifted."""
        if timesteps is None and sigmas is None:
            if not self._shift:
                return None
            # the ends stay where the config's shift had put them
            steps = check_integer("num_inference_steps", count, 1, len(self))
            sigmas = np.linspace(self.sigma_max, self.sigma_min, steps)
        settings = shifted_by(mu, self._settings(), self._rules)
        steps = settings["num_train_timesteps"]
        told = None if timesteps is None else check_numbers("timesteps", _list(timesteps))
        times = [t / steps for t in told or ()]
        if sigmas is not None:
            times = list(check_numbers("sigmas", _list(sigmas)))
        lengths = {len(times), len(times if told is None else told), count or len(times)}
        falls = all(a > b for a, b in pairwise(times))
        if lengths != {len(times)} or not times or not falls or not 0 < times[-1] <= times[0] <= 1:
            refuse("sigmas", times, "are falling numbers in 0..1, as many as steps and timesteps")
        if self._rules.family == "flow":
            return flow_schedule(settings, flow_times(settings, len(times), times), told)
        if self._rules.sampler != "unipc" or timesteps is not None:
            raise UnsupportedParameterError(
                f"{type(self).__name__}.set_timesteps: times of a flow are not supported.",
                param="timesteps" if sigmas is None else "sigmas",
            )
        return solver_flow_schedule(settings, self._table, len(times), times)

    def _levels_of_training(self) -> tuple[list[float], list[float]]:
        """`timesteps` and `sigmas` before a loop is planned."""
        steps = self.config["num_train_timesteps"]
        any_mu = {"mu": 1.0} if self._is_flow() and self.config.get("use_dynamic_shifting") else {}
        if self._rules.family == "flow":
            plain = {**self._settings(), "shift_terminal": None}
            plain.update((key, False) for key in CURVES)
            plain["shift"] = 1.0 if self.config.get("use_dynamic_shifting") else plain["shift"]
            times = flow_times(plain, steps, [k / steps for k in range(steps, 0, -1)])
            self.sigma_max, self.sigma_min = times[0], times[-1]
            self._plan = self._planned(2, schedule=flow_schedule(plain, times[:2]), **any_mu)
            return [tau * steps for tau in times], times
        self._plan = self._planned(min(2, steps), **any_mu)
        if self._plan.schedule.table is None:
            self._plan = self._planned(steps)
            return list(self._plan.timesteps), list(self._plan.schedule.sigmas)
        sigmas = self._table.sigmas[::-1].tolist()
        return list(range(len(sigmas) - 1, -1, -1)), [*sigmas, 0.0]

    def _has_sigmas(self) -> bool:
        return self._rules.family not in _BY_TIMESTEP

    def _timestep_dtype(self, torch: Any) -> Any:
        return torch.float32 if self._rules.family in _FRACTIONAL else torch.int64

    def _listed_sigmas(self) -> list[float]:
        sigmas = list(self._plan.schedule.sigmas)
        if self._is_flow():
            sigmas = [s / (1.0 + s) for s in sigmas]
        if self.order == 1:
            return sigmas
        return [sigmas[0], *(s for s in sigmas[1:-1] for _ in range(2)), sigmas[-1]]

    def _frame_of(self, timesteps: Any, sample: Any) -> tuple[Any, Any]:
        torch = import_torch()
        bars = torch.tensor(self._table.alpha_bars)
        at = timesteps.long().cpu()
        if at.numel() and not 0 <= int(at.min()) <= int(at.max()) < len(bars):
            raise InvalidRequestError(
                f"{type(self).__name__}: timesteps {at.tolist()!r:.80}, allowed are "
                f"0..{len(bars) - 1}.",
                param="timesteps",
            )
        bars = bars[at]
        return _columns(bars.sqrt(), sample), _columns((1.0 - bars).sqrt(), sample)

    def _restart(self) -> None:
        self._step_index = None
        self._begin_index = None


def _columns(values: Any, sample: Any) -> Any:
    """[B] as [B, 1, ...] on the device and in the dtype of `sample`."""
    return values.to(sample.device, sample.dtype).reshape(-1, *[1] * (sample.ndim - 1))


def _list(values: Any) -> list[float]:
    return values.tolist() if hasattr(values, "tolist") else list(values)
