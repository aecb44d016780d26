"""diffusers' ScoreSdeVeScheduler: reverse diffusion steps and Langevin corrections, one at a time.

Its pipeline runs the network between `step_correct` and `step_pred`, so there is no program to cut;
`textopia_fast.Pipeline` runs the same loop natively with the sampler "predictor_corrector".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..checks import check_integer, check_number, refuse
from ..errors import InvalidRequestError
from ..schedulers.classes import CLASSES
from ..schedulers.values import check_supported
from .scheduler_base import ConfiguredScheduler, SchedulerOutput
from .torch_noise import import_torch, randn

__all__ = ["ScoreSdeVe"]

_NAME = "ScoreSdeVeScheduler"


class ScoreSdeVe(ConfiguredScheduler):
    """Song et al. 2021 (score SDE), algorithms 2 and 4, with norms averaged over the batch."""

    _rules = CLASSES[_NAME]
    _keys = CLASSES[_NAME].defaults

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        check_supported(_NAME, {key: self.config[key] for key in self._keys}, strict=True)
        self.init_noise_sigma = self.config["sigma_max"]
        steps = self.config["num_train_timesteps"]
        self.set_timesteps(steps)
        self.set_sigmas(steps)

    def scale_model_input(self, sample: Any, timestep: Any = None) -> Any:
        """The sample as it is."""
        return sample

    def set_timesteps(
        self, num_inference_steps: int, sampling_eps: float | None = None, device: Any = None
    ) -> None:
        """Times from 1 to sampling_eps, float32 [num_inference_steps]."""
        steps = check_integer("num_inference_steps", num_inference_steps, 1, 1_000_000)
        end = self._end(sampling_eps)
        self.timesteps = import_torch().linspace(1, end, steps, device=device)

    def set_sigmas(
        self,
        num_inference_steps: int,
        sigma_min: float | None = None,
        sigma_max: float | None = None,
        sampling_eps: float | None = None,
    ) -> None:
        """`sigmas`, what the network is told at the times, and `discrete_sigmas`, the levels."""
        steps = check_integer("num_inference_steps", num_inference_steps, 1, 1_000_000)
        if len(self.timesteps) != steps:
            self.set_timesteps(steps, sampling_eps)
        given = {"sigma_min": sigma_min, "sigma_max": sigma_max}
        low, high = (
            check_number(name, self.config[name] if value is None else value)
            for name, value in given.items()
        )
        if not 0.0 < low <= high:
            refuse("sigma_min", low, f"are numbers with 0 < sigma_min <= sigma_max = {high}")
        levels = np.geomspace(low, high, steps, dtype=np.float64)
        torch = import_torch()
        self.discrete_sigmas = torch.tensor(levels, dtype=torch.float32)
        self.sigmas = (low * (high / low) ** self.timesteps.double().cpu()).float()

    def step_pred(
        self,
        model_output: Any,
        timestep: Any,
        sample: Any,
        generator: Any = None,
        return_dict: bool = True,
    ) -> Any:
        """One reverse diffusion step (equation 46): `prev_sample`, and `prev_sample_mean` without
        its noise."""
        index = int(float(timestep) * (len(self.timesteps) - 1))
        if not 0 <= index < len(self.discrete_sigmas):
            refuse("step_pred: timestep", timestep, "are those of `timesteps`")
        sigmas = self.discrete_sigmas
        following = float(sigmas[index - 1]) if index else 0.0
        variance = float(sigmas[index]) ** 2 - following**2
        noise = randn(sample.shape, generator, sample.device, sample.dtype)
        mean = sample + variance * self._checked(model_output, sample)
        moved = mean + variance**0.5 * noise
        output = SchedulerOutput({"prev_sample": moved, "prev_sample_mean": mean})
        return output if return_dict else output.to_tuple()

    def step_correct(
        self, model_output: Any, sample: Any, generator: Any = None, return_dict: bool = True
    ) -> Any:
        """One Langevin step of signal-to-noise ratio `snr` at the same level (algorithm 4)."""
        score = self._checked(model_output, sample)
        noise = randn(sample.shape, generator, sample.device, sample.dtype)
        ratio = noise.flatten(1).norm(dim=1).mean() / score.flatten(1).norm(dim=1).mean()
        step = 2.0 * (self.config["snr"] * ratio) ** 2
        moved = sample + step * score + (2.0 * step) ** 0.5 * noise
        return SchedulerOutput({"prev_sample": moved}) if return_dict else (moved,)

    def add_noise(self, original_samples: Any, noise: Any, timesteps: Any) -> Any:
        """Samples at the levels `discrete_sigmas[timesteps]`."""
        sigma = self.discrete_sigmas.to(original_samples.device)[timesteps]
        return original_samples + noise * sigma.reshape(-1, *[1] * (original_samples.ndim - 1))

    def __len__(self) -> int:
        return int(self.config["num_train_timesteps"])

    def _end(self, sampling_eps: float | None) -> float:
        if sampling_eps is None:
            return float(self.config["sampling_eps"])
        end = check_number("sampling_eps", sampling_eps)
        if not 0.0 < end < 1.0:
            refuse("sampling_eps", end, "are numbers between 0 and 1")
        return end

    def _checked(self, output: Any, sample: Any) -> Any:
        if getattr(output, "shape", None) != sample.shape:
            raise InvalidRequestError(
                f"{_NAME}: model_output {getattr(output, 'shape', type(output).__name__)} for a "
                f"sample {tuple(sample.shape)}, allowed are equal shapes.",
                param="model_output",
            )
        return output
