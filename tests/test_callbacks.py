"""`callback_on_step_end` of `tx.Pipeline` and `on_evaluation` of `tx.sample`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import textopia_fast as tx

DIRECTORY = Path(__file__).parent / "golden" / "tiny_sd"
HEUN = {"sampler": "heun", "num_inference_steps": 4, "output_type": "latent", "seed": 3}
ALL = ["latents", "prompt_embeds", "negative_prompt_embeds"]


@pytest.fixture(scope="module")
def pipe() -> tx.Pipeline:
    return tx.Pipeline.from_pretrained(DIRECTORY, threads=1)


def run(pipe: tx.Pipeline, callback: Callable[..., Any], **changed: Any) -> np.ndarray:
    return pipe("a cat", callback_on_step_end=callback, **{**HEUN, **changed}).images


def test_it_is_called_after_every_evaluation(pipe: tx.Pipeline) -> None:
    seen: list[Any] = []

    def look(call: Any, step: int, timestep: float, values: dict[str, Any]) -> dict[str, Any]:
        seen.append((step, timestep, call.num_timesteps, call.do_classifier_free_guidance))
        assert call.directory is pipe.directory
        assert {k: v.shape for k, v in values.items()} == {
            "latents": (2, 4, 8, 8),
            "prompt_embeds": (4, 77, 32),
            "negative_prompt_embeds": (2, 77, 32),
        }
        np.testing.assert_array_equal(values["prompt_embeds"][:2], values["negative_prompt_embeds"])
        return values

    given = {"num_images_per_prompt": 2, "callback_on_step_end_tensor_inputs": ALL}
    got = run(pipe, look, **given)
    assert [entry[0] for entry in seen] == list(range(7))  # Heun: 2n - 1
    assert {entry[2:] for entry in seen} == {(7, True)}
    assert [entry[1] for entry in seen] == sorted((entry[1] for entry in seen), reverse=True)
    # float32 rounding apart, who only looks changes nothing: no pass is fused with a callback
    plain = pipe("a cat", num_images_per_prompt=2, **HEUN).images
    np.testing.assert_allclose(got, plain, atol=1e-4)


def test_the_last_latents_are_the_sample(pipe: tx.Pipeline) -> None:
    for sampler in ("heun", "ddim", "dpmpp_2m", "euler_ancestral"):
        last: dict[str, Any] = {}
        got = run(pipe, lambda *a, last=last: last.update(a[3]) or a[3], sampler=sampler)
        np.testing.assert_allclose(last["latents"], got, atol=1e-6)


def test_without_guidance_there_are_no_negative_rows(pipe: tx.Pipeline) -> None:
    def look(call: Any, _step: int, _timestep: float, values: dict[str, Any]) -> dict[str, Any]:
        assert values["prompt_embeds"].shape == (1, 77, 32)
        assert values["negative_prompt_embeds"] is None
        assert not call.do_classifier_free_guidance
        return {}

    run(pipe, look, guidance_scale=1.0, callback_on_step_end_tensor_inputs=ALL)


def test_replaced_embeddings_are_those_of_another_prompt(pipe: tx.Pipeline) -> None:
    """Replaced before the second evaluation: as if the first step had been of the one prompt, the
    others of the other. The evaluations are independent with DDIM."""
    other = np.concatenate([pipe.encode_prompt(""), pipe.encode_prompt("a large red star")])
    embeds: list[np.ndarray] = []

    def replace(_c: Any, step: int, _t: float, values: dict[str, Any]) -> dict[str, Any]:
        embeds.append(values["prompt_embeds"].copy())
        return {"prompt_embeds": other} if step == 0 else {}

    ddim = {"sampler": "ddim", "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    got = run(pipe, replace, **ddim)
    assert not np.array_equal(embeds[0], other)
    np.testing.assert_array_equal(embeds[1], other)
    latents: list[np.ndarray] = []
    pipe(
        "a cat",
        callback_on_step_end=lambda *a: latents.append(a[3]["latents"].copy()) or {},
        **{**HEUN, "sampler": "ddim"},
    )

    def start(_c: Any, step: int, _t: float, _v: dict[str, Any]) -> dict[str, Any]:
        return {"latents": latents[0]} if step == 0 else {}

    expected = pipe(
        "a large red star", callback_on_step_end=start, **{**HEUN, "sampler": "ddim"}
    ).images
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_interrupting_gives_the_latents_that_there_are(pipe: tx.Pipeline) -> None:
    shown: list[np.ndarray] = []

    def stop(call: Any, step: int, _t: float, values: dict[str, Any]) -> dict[str, Any]:
        shown.append(values["latents"].copy())
        call._interrupt = step == 2
        return values

    got = run(pipe, stop)
    assert len(shown) == 3
    np.testing.assert_array_equal(got, shown[-1])


def test_what_it_raises_comes_out(pipe: tx.Pipeline) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        run(pipe, fail)
    assert run(pipe, lambda *a: a[3]).shape == (1, 4, 8, 8)  # the pipeline still works


def test_it_may_cancel(pipe: tx.Pipeline) -> None:
    token = tx.CancelToken()
    steps: list[int] = []

    def cancel(_c: Any, step: int, _t: float, values: dict[str, Any]) -> dict[str, Any]:
        steps.append(step)
        if step == 1:
            token.cancel()
        return values

    with pytest.raises(tx.GenerationCancelled):
        run(pipe, cancel, cancel=token)
    assert steps == [0, 1]


@pytest.mark.parametrize(
    ("returned", "text"),
    [
        (None, "returns a dictionary"),
        (7, "returns a dictionary"),
        ({"latents": np.zeros((1, 4, 8, 7))}, r"latents came back with the shape \(1, 4, 8, 7\)"),
        ({"latents": "x"}, "latents"),
        ({"prompt_embeds": np.zeros((1, 77, 32))}, r"allowed is \(2, 77, 32\)"),
        ({"prompt_embeds": np.zeros((2, 78, 32))}, r"allowed is \(2, 77, 32\)"),
    ],
)
def test_wrong_results(pipe: tx.Pipeline, returned: Any, text: str) -> None:
    with pytest.raises(tx.InvalidRequestError, match=text):
        run(pipe, lambda *_: returned)


def test_wrong_guidance(pipe: tx.Pipeline) -> None:
    def change(value: Any) -> Callable[..., Any]:
        def callback(call: Any, _s: int, _t: float, values: dict[str, Any]) -> dict[str, Any]:
            call._guidance_scale = value
            return values

        return callback

    with pytest.raises(tx.InvalidRequestError, match="guidance_scale"):
        run(pipe, change(float("nan")))
    # Without a negative half from the start there is none to be guided away from.
    plain = pipe("a cat", **HEUN, guidance_scale=1.0).images
    got = run(pipe, change(5.0), guidance_scale=1.0)
    np.testing.assert_allclose(got, plain, atol=1e-4)


@pytest.mark.parametrize("names", ["latents", ["mask"], ["latents", 1], 3])
def test_names_that_are_not_there(pipe: tx.Pipeline, names: Any) -> None:
    with pytest.raises(tx.InvalidRequestError, match="tensor_inputs"):
        run(pipe, lambda *a: a[3], callback_on_step_end_tensor_inputs=names)


def test_a_mask_that_changes(pipe: tx.Pipeline) -> None:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 255, (64, 64, 3), np.uint8))
    half = np.zeros((64, 64), np.uint8)
    half[:32] = 255

    def everything(_c: Any, _s: int, _t: float, values: dict[str, Any]) -> dict[str, Any]:
        assert values["mask"].shape == (2, 1, 8, 8)
        assert values["masked_image_latents"].shape == (2, 4, 8, 8)
        return {"mask": np.ones_like(values["mask"])}

    names = ["mask", "masked_image_latents"]
    given = {"image": picture, "sampler": "euler", "callback_on_step_end_tensor_inputs": names}
    kept = run(pipe, lambda *_: {}, mask_image=Image.fromarray(half), **given)
    painted = run(pipe, everything, mask_image=Image.fromarray(half), **given)
    assert np.abs(kept - painted)[:, :, 4:].max() > 0.1


def test_progress_and_preview_go_on_beside_it(pipe: tx.Pipeline) -> None:
    steps: list[Any] = []
    run(
        pipe,
        lambda *a: a[3],
        progress=lambda step, total: steps.append((step, total)),
        preview=lambda _step, denoised: steps.append(denoised.shape),
    )
    assert steps == [item for k in range(4) for item in ((k + 1, 4), (1, 4, 8, 8))]


@pytest.mark.parametrize(
    "returned",
    [
        {"latents": np.zeros((1, 3))},
        {"what": 1},
        {"guidance": float("inf")},
        {"guidance": 2.0},
        {"cond": {"encoder_hidden_states": np.zeros((3, 77, 32), np.float32)}},
        {"cond": {"nothing": np.zeros((1, 1), np.float32)}},
        {"mask": np.zeros((1, 1))},
    ],
)
def test_wrong_changes_of_sample(returned: dict[str, Any]) -> None:
    net = tx.Denoiser(DIRECTORY / "unet" / "model.onnx", threads=1)
    program = net.trace("euler", tx.Schedule((1.0, 0.5, 0.0), (500.0, 200.0), 1.0))
    cond = {"encoder_hidden_states": np.zeros((1, 77, 32), np.float32)}
    x = np.ones((1, 4, 8, 8), np.float32)
    with pytest.raises(tx.InvalidRequestError):
        tx.sample(net, x, program, cond, on_evaluation=lambda *_: returned)
