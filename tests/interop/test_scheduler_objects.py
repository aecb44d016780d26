"""The scheduler classes as objects: outputs, configs, names, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.golden.sampler_cases import SD, initial_noise
from tests.interop.loops import PLAIN, run
from textopia_fast import errors
from textopia_fast.interop import diffusers as ours
from textopia_fast.interop.class_facts import TWO_RUNS

torch = pytest.importorskip("torch")

# diffusers' own notices, and torch and NumPy disagree on the spelling of their array protocol.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def test_outputs_are_read_in_every_way() -> None:
    scheduler = ours.EulerDiscreteScheduler.from_config(PLAIN)
    scheduler.set_timesteps(3)
    x = torch.from_numpy(initial_noise())
    out = scheduler.step(x, scheduler.timesteps[0], x)
    assert out.prev_sample is out["prev_sample"] is out[0]
    assert out.to_tuple()[1] is out.pred_original_sample
    assert not hasattr(out, "denoised")
    assert scheduler.step_index == 1


def test_the_config_is_frozen() -> None:
    config = ours.EulerDiscreteScheduler(**SD).config
    assert config.beta_end == config["beta_end"] == SD["beta_end"]
    assert not hasattr(config, "clip_sample")
    with pytest.raises(errors.InvalidRequestError):
        config["beta_end"] = 0.5
    with pytest.raises(errors.InvalidRequestError):
        config.beta_end = 0.5


def test_keys_that_nobody_knows_are_spoken_of() -> None:
    with pytest.warns(errors.TextopiaWarning, match="beta_stort"):
        ours.DDIMScheduler.from_config({"beta_stort": 0.1})
    _, unused = ours.DDIMScheduler.from_config(
        {"skip_prk_steps": True, "_class_name": "PNDMScheduler"}, return_unused_kwargs=True, a=1
    )
    assert unused["a"] == 1
    assert unused["skip_prk_steps"] is True


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: ours.DDIMScheduler(beta_stort=1), errors.InvalidRequestError, "beta_stort"),
        (lambda: ours.DDIMScheduler.from_config("here"), errors.InvalidRequestError, "dictionary"),
        (
            lambda: ours.DDIMScheduler(thresholding="yes"),
            errors.UnsupportedModelError,
            "threshold",
        ),
        (
            lambda: ours.EulerDiscreteScheduler(interpolation_type="cubic"),
            errors.UnsupportedModelError,
            "interpolation_type",
        ),
        (
            lambda: ours.DDIMScheduler.from_pretrained("nowhere"),
            errors.ModelNotFoundError,
            "nowhere",
        ),
        (lambda: ours.from_a1111("Eular", {}), errors.InvalidRequestError, "Euler"),
    ],
)
def test_schedulers_that_cannot_be_made(make: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        make()


def test_a_config_file_that_is_none(tmp_path: Any) -> None:
    (tmp_path / "scheduler_config.json").write_text("[1]")
    with pytest.raises(errors.ModelFormatError):
        ours.DDIMScheduler.from_pretrained(tmp_path)
    (tmp_path / "scheduler_config.json").write_text("{")
    with pytest.raises(errors.ModelFormatError):
        ours.DDIMScheduler.from_pretrained(tmp_path)


def call_step(name: str = "EulerDiscreteScheduler", **changed: Any) -> Any:
    scheduler = getattr(ours, name).from_config({**PLAIN, "clip_sample": True})
    scheduler.set_timesteps(4)
    x = torch.from_numpy(initial_noise())
    values = {"model_output": x, "timestep": scheduler.timesteps[0], "sample": x, **changed}
    return scheduler.step(**values)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"sample": np.zeros((2, 3))}, errors.InvalidRequestError),
        ({"model_output": torch.zeros(1, 6, 2, 2)}, errors.InvalidRequestError),
        ({"model_output": torch.zeros(2, 3, 2, 2, dtype=torch.int64)}, errors.InvalidRequestError),
        ({"timestep": 3}, errors.InvalidRequestError),
        ({"timestep": torch.tensor(12.5)}, errors.InvalidRequestError),
        ({"eta": 1.0}, errors.InvalidRequestError),
        ({"s_churn": 1.0}, errors.UnsupportedParameterError),
        (
            {"name": "DDIMScheduler", "use_clipped_model_output": True},
            errors.UnsupportedParameterError,
        ),
        ({"name": "DDIMScheduler", "eta": -1.0}, errors.InvalidRequestError),
        (
            {
                "name": "DDIMScheduler",
                "generator": torch.Generator(),
                "variance_noise": torch.zeros(2, 3, 2, 2),
            },
            errors.InvalidRequestError,
        ),
        (
            {"name": "EulerAncestralDiscreteScheduler", "generator": [torch.Generator()] * 3},
            errors.InvalidRequestError,
        ),
        ({"name": "EulerAncestralDiscreteScheduler", "generator": 7}, errors.InvalidRequestError),
    ],
)
def test_steps_that_do_not_fit(arguments: dict[str, Any], error: Any) -> None:
    with pytest.raises(error):
        call_step(**arguments)


def test_loops_that_do_not_fit() -> None:
    scheduler = ours.HeunDiscreteScheduler.from_config(PLAIN)
    x = torch.from_numpy(initial_noise())
    with pytest.raises(errors.InvalidRequestError, match="set_timesteps"):
        scheduler.step(x, scheduler.timesteps[0], x)
    for bad in (
        {"num_inference_steps": 0},
        {"num_inference_steps": 1001},
        {"num_inference_steps": 3, "timesteps": [3, 2, 1]},
        {"timesteps": [1, 2, 3]},
        {},
        {"num_inference_steps": 3, "steps": 4},
        {"num_inference_steps": 3, "num_train_timesteps": 500},
    ):
        with pytest.raises(errors.InvalidRequestError):
            scheduler.set_timesteps(**bad)
    scheduler.set_timesteps(3)
    scheduler.set_begin_index(1)
    with pytest.raises(errors.InvalidRequestError, match="multiples of 2"):
        scheduler.step(x, scheduler.timesteps[1], x)
    run(scheduler, 3)
    with pytest.raises(errors.InvalidRequestError, match="set_timesteps"):
        scheduler.step(x, scheduler.timesteps[-1], x)


def test_a1111_names() -> None:
    assert {"Euler", "Euler a", "DPM++ 2M Karras", "DDIM", "Heun"} <= set(ours.A1111)
    for name, (class_name, settings) in ours.A1111.items():
        try:
            scheduler = ours.from_a1111(name, {**PLAIN, "_class_name": "PNDMScheduler"})
        except errors.UnsupportedModelError:
            assert "algorithm_type" in settings, name
            continue
        assert type(scheduler) is getattr(ours, class_name)
        assert all(scheduler.config[k] == v for k, v in settings.items())
    karras = ours.from_a1111("DPM++ 2M Karras", PLAIN)
    assert karras.config.use_karras_sigmas is True


def test_two_runs_per_step_are_listed_twice() -> None:
    for name in set(TWO_RUNS) & set(ours.SCHEDULERS):
        scheduler = getattr(ours, name).from_config(PLAIN)
        scheduler.set_timesteps(4)
        assert len(scheduler.timesteps) == 7


def test_unknown_classes_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match="NoSuchScheduler"):
        _ = ours.NoSuchScheduler
    assert "DDIMScheduler" in dir(ours)


def test_levels_that_there_are_not() -> None:
    x = torch.from_numpy(initial_noise())
    scheduler = ours.DDIMScheduler.from_config(PLAIN)
    for call in (scheduler.add_noise, scheduler.get_velocity):
        with pytest.raises(errors.InvalidRequestError, match="999"):
            call(x, x, torch.tensor([3, 1000]))
    for bad in (-1, 1.5, None):
        with pytest.raises(errors.InvalidRequestError, match="begin"):
            scheduler.set_begin_index(bad)
