"""The loop of a diffusers pipeline on a stand-in network, for their schedulers and for ours."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

from tests.golden.sampler_cases import SD, initial_noise, network
from textopia_fast.interop import diffusers as ours

torch = pytest.importorskip("torch")
theirs = pytest.importorskip("diffusers")

FLOAT32_EPS = float(np.finfo(np.float32).eps)
PLAIN = {**SD, "clip_sample": False, "steps_offset": 1}


def torch_network(x: Any, t: Any) -> Any:
    level = torch.as_tensor(t, dtype=torch.float32)
    return network(x.float(), level, torch.tanh, torch.cos).to(x.dtype)


def run(
    scheduler: Any,
    steps: int | dict[str, Any],
    generator: Any = None,
    first: int = 0,
    dtype: Any = None,
    **options: Any,
) -> dict[str, Any]:
    """The loop of a diffusers pipeline, from position `first` as image-to-image starts it."""
    planned = dict(steps) if isinstance(steps, dict) else {"num_inference_steps": steps}
    if "mu" in options:
        planned["mu"] = options.pop("mu")
    scheduler.set_timesteps(**planned)
    noise = torch.from_numpy(initial_noise()).to(dtype or torch.float32)
    timesteps = scheduler.timesteps[first:]
    x = noise * getattr(scheduler, "init_noise_sigma", 1.0)  # diffusers' flows have none
    seen = getattr(scheduler, "scale_model_input", lambda x, t: x)
    if first:
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        clean = 0.5 * noise.roll(1)
        if hasattr(scheduler, "scale_noise"):
            x = scheduler.scale_noise(clean, timesteps[:1], noise)
        else:
            x = scheduler.add_noise(clean, noise, timesteps[:1])
    x = x.to(noise.dtype)
    takes = inspect.signature(scheduler.step).parameters
    if "generator" in takes:
        options["generator"] = generator or torch.Generator().manual_seed(5)
    latents, clean = [], []
    for t in timesteps:
        output = torch_network(seen(x, t), t)
        stepped = scheduler.step(output, t, x, **options)
        x = stepped.prev_sample
        assert x.dtype == noise.dtype
        latents.append(x)
        clean += [stepped[k] for k in ("pred_original_sample", "denoised") if k in stepped]
    return {"timesteps": timesteps, "latents": latents, "clean": clean, "start": noise}


def assert_same(got: dict[str, Any], expected: dict[str, Any], init: float = 1.0) -> None:
    """1e-4 of the largest latent is what float32 sigmas are worth over a run.

    The way down from much larger latents (4096 at zero terminal SNR) adds its rounding.
    """
    torch.testing.assert_close(
        got["timesteps"].double(), expected["timesteps"].double(), rtol=2e-5, atol=2e-3
    )
    assert got["timesteps"].is_floating_point() == expected["timesteps"].is_floating_point()
    assert len(got["clean"]) == len(expected["clean"])
    largest = init * float(expected["start"].abs().max())
    for name, tolerance in (("latents", 1e-4), ("clean", 3e-4)):
        for mine, reference in zip(got[name], expected[name], strict=True):
            allowed = tolerance * float(reference.abs().max()) + 2 * FLOAT32_EPS * largest
            assert float((mine - reference).abs().max()) < allowed, name


def pair(name: str, config: dict[str, Any]) -> tuple[Any, Any]:
    if name == "LMSDiscreteScheduler" or config.get("use_beta_sigmas"):
        pytest.importorskip("scipy", reason="diffusers needs SciPy for this")
    return getattr(ours, name).from_config(config), getattr(theirs, name).from_config(config)
