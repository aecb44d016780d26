"""A diffusers scheduler that executes a traced program, one network run per `step`.

The caller owns the loop and the network; between two runs this does what the program does. Latents
are shown to the caller as the class of diffusers shows them.
"""

from __future__ import annotations

from typing import Any

from ..errors import InvalidRequestError, UnsupportedParameterError
from ..samplers import trace_plan
from ..tracing.prediction import coefficients
from ..tracing.reference import thresholded
from .class_facts import DRAWS_ALWAYS, GIVES_X0
from .scheduler_base import SchedulerOutput
from .scheduler_levels import LeveledScheduler
from .segments import Registers, Segment, cut
from .torch_noise import import_torch, randn

__all__ = ["SchedulerOutput", "TracedScheduler"]

# Options of step() that choose the program.
_TRACED = ("eta", "order")
# Of the classes whose noise has a scale of its own; EulerDiscrete's belongs to its churn.
_SCALED = ("DPMSolverSDEScheduler",)
_ALMOST_ONE = 1e-12


class TracedScheduler(LeveledScheduler):
    """What all scheduler classes share; `interop.diffusers` makes the classes.

    All state is in the object and starts anew with `set_timesteps`: one object serves one loop at a
    time, and any number of objects may run at once.
    """

    def scale_model_input(self, sample: Any, timestep: Any = None) -> Any:
        """What the network is to see of `sample` at the present step."""
        if self._plan.vp_latents:
            return sample
        self._need_timesteps()
        if self._step_index is None:
            self._step_index = self._first_index(timestep)
        return sample * self._frames[self._at(self._step_index)]

    def _step(
        self,
        model_output: Any,
        timestep: Any,
        sample: Any,
        return_dict: bool = True,
        generator: Any = None,
        variance_noise: Any = None,
        **options: Any,
    ) -> Any:
        torch = import_torch()
        self._need_timesteps()
        self._check_step(torch, model_output, timestep, sample, options)
        if generator is not None and variance_noise is not None:
            raise InvalidRequestError(
                "step: generator and variance_noise are given, allowed is one.",
                param="variance_noise",
            )
        if self._is_stateless():
            index = self.index_for_timestep(timestep)
        elif self._step_index is None:
            index = self._first_index(timestep)
        else:
            index = self._at(self._step_index)
        segment, following = self._segments_at(index, options)
        work = torch.promote_types(
            torch.promote_types(sample.dtype, model_output.dtype), torch.float32
        )
        x, e = sample.to(work), model_output.to(work)
        frame = self._frames[index]
        registers = self._registers
        registers[segment.source] = _times(x, frame / segment.factor)
        registers[segment.output] = e
        drawn = []

        def draw() -> Any:
            drawn.append(True)
            if variance_noise is not None:
                return variance_noise.to(x.device, work)
            dtype = torch.float32 if self._is_sde() else model_output.dtype
            return randn(model_output.shape, generator, x.device, dtype).to(work)

        generator = generator if self._seeded is None else self._seeded
        shown: list[Any] = []
        is_lcm = type(self).__name__ == "LCMScheduler"
        registers.run(
            segment.body,
            draw,
            (lambda step: shown.append(registers.sum(step.denoised))) if is_lcm else None,
        )
        if not drawn and variance_noise is None and self._draws_anyway(timestep, options):
            draw()  # for nothing but the state of the generator, which is the caller's
        if following is None:
            result = registers[self._result]
            previous = _times(result, self._plan.latent_scales[-1])
            registers.keep(set())
        else:
            previous = registers[following.source]
            previous = _times(previous, following.factor / self._frames[index + 1])
            registers.keep(following.needs)
        self._step_index = index + 1
        output = {"prev_sample": previous.to(model_output.dtype)}
        if shown:
            output["denoised"] = shown[0].to(model_output.dtype)
        if type(self).__name__ in GIVES_X0:
            output["pred_original_sample"] = self._clean(x, e, index).to(model_output.dtype)
        return SchedulerOutput(output) if return_dict else tuple(output.values())

    def _restart(self) -> None:
        super()._restart()
        self._options: dict[str, Any] | None = None
        self._segments: tuple[Segment, ...] = ()
        self._first = 0
        self._registers = Registers()
        self._seeded = _generators(self.config.get("noise_sampler_seed"))

    def _segments_at(self, index: int, options: dict[str, Any]) -> tuple[Segment, Segment | None]:
        """The segment of a step and the one after it; traces when the loop starts."""
        names = (*_TRACED, "s_noise") if type(self).__name__ in _SCALED else _TRACED
        traced = {k: v for k, v in options.items() if k in names}
        if self._options is None or traced != self._options:
            starts = self._options is None
            first = 0 if self._is_stateless() else index if starts else self._first
            if first % self._unit():
                raise InvalidRequestError(
                    f"{type(self).__name__}: the loop starts at position {first}, allowed are "
                    f"multiples of {self._unit()}.",
                    param="begin_index",
                )
            plan = self._planned(self.num_inference_steps, **{**self._given, **traced})
            program = trace_plan(plan.tail(first // self.order))
            _, segments = cut(program)
            told = self.timesteps[first:].tolist()
            if len(told) != len(segments) or any(
                abs(a - b) >= 1.0 for a, b in zip(told, program.noise_levels, strict=True)
            ):  # PNDM counts its first runs otherwise
                raise UnsupportedParameterError(
                    f"{type(self).__name__}: it cannot start at position {first} of `timesteps`.",
                    param="begin_index",
                )
            if not starts and segments[index - first].needs:
                raise InvalidRequestError(
                    f"{type(self).__name__}.step: {traced} after {self._options}, allowed is one "
                    "value for a whole loop.",
                    param=next(iter(traced)),
                )
            self._segments, self._first = segments, first
            self._result, self._options = program.result, traced
        at = index - self._first
        following = self._segments[at + 1] if at + 1 < len(self._segments) else None
        return self._segments[at], following

    def _check_step(
        self, torch: Any, output: Any, timestep: Any, sample: Any, options: dict[str, Any]
    ) -> None:
        for name, value in (("model_output", output), ("sample", sample)):
            if not isinstance(value, torch.Tensor) or not value.is_floating_point():
                raise InvalidRequestError(
                    f"step: {name} is {getattr(value, 'dtype', type(value).__name__)}, allowed is "
                    "a floating-point torch tensor.",
                    param=name,
                )
        if output.shape != sample.shape:
            raise InvalidRequestError(
                f"step: model_output {tuple(output.shape)} for a sample {tuple(sample.shape)}, "
                "allowed are equal shapes.",
                param="model_output",
            )
        if self._rules.family in ("euler", "flow", "edm") and isinstance(timestep, int):
            raise InvalidRequestError(
                f"step: timestep is the integer {timestep}, allowed is one of `timesteps`.",
                param="timestep",
            )
        if options.get("s_churn"):
            raise UnsupportedParameterError(
                "step: s_churn is not supported.",
                hint="textopia_fast.interop.k_diffusion.sample_euler has it.",
                param="s_churn",
            )
        for name in ("per_token_timesteps", "pred_original_sample"):
            if options.get(name) is not None:
                raise UnsupportedParameterError(f"step: {name} is not supported.", param=name)
        limits = self.config.get("clip_sample") or self.config.get("thresholding")
        if options.get("use_clipped_model_output") and limits:
            raise UnsupportedParameterError(
                "step: use_clipped_model_output with clip_sample or thresholding is not supported.",
                param="use_clipped_model_output",
            )

    def _first_index(self, timestep: Any) -> int:
        if self._begin_index is not None:
            return self._at(self._begin_index)
        return self.index_for_timestep(timestep)

    def _at(self, index: int) -> int:
        if not 0 <= index < len(self.timesteps):
            raise InvalidRequestError(
                f"{type(self).__name__}: position {index} of {len(self.timesteps)} timesteps.",
                hint="Call set_timesteps before another loop.",
                param="timestep",
            )
        return index

    def _need_timesteps(self) -> None:
        if self.num_inference_steps is None:
            raise InvalidRequestError(
                f"{type(self).__name__}: there is no schedule yet, call set_timesteps first.",
                param="num_inference_steps",
            )

    def _clean(self, x: Any, e: Any, index: int) -> Any:
        scale_in, c_skip, c_out = coefficients(self._plan.prediction)(self._seen[index])
        clean = e * c_out
        if c_skip:
            clean.add_(x, alpha=c_skip * self._frames[index] / scale_in)
        if self._config_says("thresholding"):
            bounds = self.config["dynamic_thresholding_ratio"], self.config["sample_max_value"]
            return thresholded(clean, *bounds)
        if self._config_says("clip_sample"):
            bound = self.config["clip_sample_range"]
            clean.clamp_(-bound, bound)
        return clean

    def _config_says(self, key: str) -> bool:
        return bool(self.config.get(key)) and key in self._keys

    def _draws_anyway(self, timestep: Any, options: dict[str, Any]) -> bool:
        name = type(self).__name__
        if name == "DDIMScheduler":
            return bool(options["eta"])
        if name == "DDPMScheduler":
            return float(timestep) > 0
        stochastic = self.config.get("stochastic_sampling")
        return name in DRAWS_ALWAYS or bool(stochastic) or self._is_sde()

    def _unit(self) -> int:
        """Entries of `timesteps` that belong together."""
        is_single = self._rules.sampler == "dpm_singlestep"
        return self.config["solver_order"] if is_single else self.order

    def _is_stateless(self) -> bool:
        """A step looks at nothing but its own timestep."""
        return self._rules.sampler in ("ddim", "ddpm")

    def _is_sde(self) -> bool:
        return str(self.config.get("algorithm_type")).startswith("sde")


def _generators(seed: Any) -> Any:
    """torch generators of DPMSolverSDE's noise_sampler_seed: one, or one per image."""
    if seed is None:
        return None
    if isinstance(seed, list):
        return [_generators(one) for one in seed]
    return import_torch().Generator().manual_seed(seed)


def _times(x: Any, factor: float) -> Any:
    return x if abs(factor - 1.0) < _ALMOST_ONE else x * factor
