"""Guidance and its corrections in the native loop: rescale, by step and noise level, CFG++,
dynamic thresholding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import textopia_fast as tx
from tests.reference import guidance_float64 as paper
from tests.support.networks import tanh_formula, tanh_network
from tests.test_loop import CONFIG, assert_close, by_reference, contexts, program_of, random_latents
from textopia_fast import _core
from textopia_fast.tracing import reference
from textopia_fast.tracing.program import Rescale, Threshold

CFG_PP = [name for name in tx.samplers.names() if name.endswith("cfg_pp")]


@pytest.fixture(scope="module")
def denoiser() -> tx.Denoiser:
    return tx.Denoiser(tanh_network(), threads=1)


@pytest.fixture(scope="module")
def pipe() -> tx.Pipeline:
    return tx.Pipeline.from_pretrained("tiny-shapes", threads=1)


def sampled(denoiser: tx.Denoiser, program: tx.Program, batch: int, **options: Any) -> np.ndarray:
    x = random_latents(batch) * np.float32(program.initial_scale)
    positive, negative = contexts(3)
    return tx.sample(
        denoiser,
        x,
        program,
        {"context": positive[:batch]},
        {"context": negative[:batch]},
        noise=tx.Noise.torch([1, 2, 3][:batch]),
        **options,
    )


# --- guidance rescale


@pytest.mark.parametrize("guidance", [7.5, 0.0, -2.0])
@pytest.mark.parametrize("phi", [0.3, 0.7, 1.0])
@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2m", "heun", "pndm"])
def test_rescale_is_the_papers(
    denoiser: tx.Denoiser, sampler: str, phi: float, guidance: float
) -> None:
    program = program_of(sampler)
    got = sampled(denoiser, program, 3, guidance=guidance, guidance_rescale=phi)
    positive, negative = contexts(3)
    stream = tx.Noise.torch([1, 2, 3]).stream(3)

    def network(x: np.ndarray, t: float) -> np.ndarray:
        pair = tanh_formula(x, t, negative), tanh_formula(x, t, positive)
        return paper.rescaled(pair, guidance, phi)

    x = random_latents(3) * np.float32(program.initial_scale)
    expected = reference.run(
        program,
        network,
        x.astype(np.float64),
        lambda: stream.draw(3, x[0].size).reshape(x.shape).astype(np.float64),
    )
    assert_close(got, expected)
    executed = by_reference(
        program.rescaled(phi), x, positive, negative, guidance, tx.Noise.torch([1, 2, 3])
    )
    assert_close(got, executed)


@pytest.mark.parametrize("images_per_run", [None, 1, 2])
def test_rescale_knows_no_neighbours(images_per_run: int | None) -> None:
    denoiser = tx.Denoiser(tanh_network(), images_per_run=images_per_run, threads=1)
    program = program_of("dpmpp_2m")
    options = {"guidance": 5.0, "guidance_rescale": 0.7}
    together = sampled(denoiser, program, 3, **options)
    alone = sampled(denoiser, program, 1, **options)
    np.testing.assert_array_equal(together[:1], alone)


def test_rescale_changes_nothing_without_guidance(denoiser: tx.Denoiser) -> None:
    program = program_of("euler")
    plain = sampled(denoiser, program, 2, guidance=1.0)
    np.testing.assert_array_equal(
        sampled(denoiser, program, 2, guidance=1.0, guidance_rescale=0.7), plain
    )
    guided = sampled(denoiser, program, 2, guidance=4.0)
    np.testing.assert_array_equal(
        sampled(denoiser, program, 2, guidance=4.0, guidance_rescale=0.0), guided
    )


def test_rescale_where_some_steps_have_no_guidance(denoiser: tx.Denoiser) -> None:
    """The factors of a step do not live on in the next."""
    program = program_of("dpmpp_2m", 4)
    values = [6.0, 1.0, 6.0, 1.0]
    got = sampled(denoiser, program, 2, guidance=values, guidance_rescale=0.7)
    positive, negative = contexts(3)
    x = random_latents(2) * np.float32(program.initial_scale)
    expected = reference.run(
        program.rescaled(0.7),
        lambda x, t: (tanh_formula(x, t, negative[:2]), tanh_formula(x, t, positive[:2])),
        x.astype(np.float64),
        lambda: None,
        values.__getitem__,
    )
    assert_close(got, expected)


def test_an_output_without_spread_stays() -> None:
    """A standard deviation of 0 has no ratio."""
    denoiser = tx.Denoiser(tanh_network(), threads=1)
    program = program_of("euler", 3)
    x = np.zeros((1, 4, 3, 3), np.float32)
    options = {
        "cond": {"context": np.ones((1, 2, 4), np.float32)},
        "uncond": {"context": np.zeros((1, 2, 4), np.float32)},
        "guidance": 4.0,
    }
    plain = tx.sample(denoiser, x, program, **options)
    rescaled = tx.sample(denoiser, x, program, **options, guidance_rescale=0.7)
    np.testing.assert_array_equal(rescaled, plain)


def test_rescaled_programs_are_plain_data() -> None:
    program = program_of("euler", 2)
    rescaled = program.rescaled(0.7)
    assert program.rescaled(0.0) is program
    assert [i for i in rescaled.instructions if not isinstance(i, Rescale)] == list(
        program.instructions
    )
    assert str(rescaled).count("RESCALE        e0  by 0.7") == 2
    assert hash(rescaled) == hash(program.rescaled(0.7)) != hash(program)
    assert rescaled.denoise_count == program.denoise_count


@pytest.mark.parametrize("phi", [-0.1, 1.1, float("nan"), "0.7", None])
def test_rescale_out_of_range(denoiser: tx.Denoiser, phi: Any) -> None:
    with pytest.raises(tx.InvalidRequestError, match="guidance_rescale"):
        sampled(denoiser, program_of("euler"), 1, guidance=2.0, guidance_rescale=phi)


# --- dynamic thresholding


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m", "unipc", "lcm", "heun", "dpm_singlestep"])
def test_thresholding_is_native(denoiser: tx.Denoiser, sampler: str) -> None:
    program = program_of(sampler, threshold=(0.9, 1.5))
    assert any(isinstance(i, Threshold) for i in program.instructions)
    got = sampled(denoiser, program, 3, guidance=3.0)
    positive, negative = contexts(3)
    x = random_latents(3) * np.float32(program.initial_scale)
    noise = tx.Noise.torch([1, 2, 3])
    assert_close(got, by_reference(program, x, positive, negative, 3.0, noise))
    np.testing.assert_array_equal(sampled(denoiser, program, 1, guidance=3.0), got[:1])


def test_the_estimate_is_thresholded_and_eps_of_ddim_is_not() -> None:
    program = program_of("ddim", 1, threshold=(0.5, 1.2))
    x = random_latents(2).astype(np.float64) * program.initial_scale
    shown: list[np.ndarray] = []
    got = reference.run(
        program,
        lambda x, t: np.tanh(x),
        x,
        lambda: None,
        on_step=lambda i, x, x0: shown.append(x0),
    )
    (denoise,) = [i for i in program.instructions if hasattr(i, "noise_level")]
    e = np.tanh(x * denoise.scale_in)
    sigma = np.sqrt(1 / denoise.scale_in**2 - 1)
    clean = paper.thresholded(x - sigma * e, 0.5, 1.2)
    np.testing.assert_allclose(shown[0], clean, rtol=1e-10, atol=1e-12)
    plan = tx.samplers.from_config(CONFIG, 1)
    t = plan.schedule.targets[0]
    expected = (clean + t * e) / np.sqrt(1 + t * t)
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "bounds", [(1.5, 2.0), (-0.1, 2.0), (0.5, 0.0), (0.5,), 0.5, (0.5, float("nan")), "ab"]
)
@pytest.mark.parametrize("sampler", ["ddim", "euler"])
def test_bad_bounds(sampler: str, bounds: Any) -> None:
    with pytest.raises(tx.InvalidRequestError, match="threshold"):
        tx.trace(sampler, [3.0, 1.0, 0.0], threshold=bounds)


# --- CFG++


@pytest.mark.parametrize("images_per_run", [None, 1])
@pytest.mark.parametrize("guidance", [0.6, 1.0, 0.0])
@pytest.mark.parametrize("sampler", CFG_PP)
def test_cfg_pp_is_native(sampler: str, guidance: float, images_per_run: int | None) -> None:
    """Also at guidance 1, where other programs leave the negative half out."""
    denoiser = tx.Denoiser(tanh_network(), images_per_run=images_per_run, threads=1)
    program = program_of(sampler)
    got = sampled(denoiser, program, 3, guidance=guidance, guidance_rescale=0.5)
    positive, negative = contexts(3)
    x = random_latents(3) * np.float32(program.initial_scale)
    noise = tx.Noise.torch([1, 2, 3])
    expected = by_reference(program.rescaled(0.5), x, positive, negative, guidance, noise)
    assert_close(got, expected)


def test_cfg_pp_needs_the_negative_half(denoiser: tx.Denoiser) -> None:
    program = program_of("euler_cfg_pp", 2)
    positive, _ = contexts(1)
    with pytest.raises(tx.InvalidRequestError, match=r"no negative half.*CFG\+\+"):
        tx.sample(denoiser, random_latents(1), program, {"context": positive})


# --- the pipeline: by step and by noise level


def pictures(pipe: tx.Pipeline, **options: Any) -> np.ndarray:
    given = {"num_inference_steps": 4, "seed": 3, "output_type": "latent", **options}
    return pipe("a red circle", **given).images


def test_guidance_per_step(pipe: tx.Pipeline) -> None:
    one = pictures(pipe, guidance_scale=5.0)
    np.testing.assert_array_equal(pictures(pipe, guidance_scale=[5.0] * 4), one)
    np.testing.assert_array_equal(pictures(pipe, guidance_scale=np.full(4, 5.0)), one)
    varied = pictures(pipe, guidance_scale=[5.0, 5.0, 2.0, 1.0])
    assert np.abs(varied - one).max() > 1e-3
    # both network runs of a step of Heun have its guidance
    heun = pictures(pipe, sampler="heun", guidance_scale=[5.0] * 4)
    np.testing.assert_array_equal(heun, pictures(pipe, sampler="heun", guidance_scale=5.0))


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_interval_in_sigma(pipe: tx.Pipeline, sampler: str) -> None:
    out = pipe("a red circle", num_inference_steps=4, sampler=sampler, output_type="latent")
    sigmas = out.parameters["sigmas"]
    options = {"sampler": sampler, "guidance_scale": 5.0}
    everywhere = pictures(pipe, **options)
    for whole in ((0.0, sigmas[0]), (0, float("inf")), [0.0, 1e9]):
        np.testing.assert_array_equal(
            pictures(pipe, **options, guidance_interval=whole), everywhere
        )
    # (low, high]: the second and third noise level. Heun's second run of a step is at the next one.
    some = pictures(pipe, **options, guidance_interval=(sigmas[3], sigmas[1]))
    if sampler == "euler":
        by_hand = pictures(pipe, sampler=sampler, guidance_scale=[1.0, 5.0, 5.0, 1.0])
        np.testing.assert_array_equal(some, by_hand)
    assert np.abs(some - everywhere).max() > 1e-3


def test_outside_of_the_interval_the_negative_half_does_not_run(pipe: tx.Pipeline) -> None:
    size = pipe._graphs.text_encoder.encode(("",)).shape
    embeds = np.full(size, np.nan, np.float32)
    options = {"negative_prompt_embeds": embeds, "guidance_scale": 5.0}
    plain = pictures(pipe, guidance_scale=1.0)
    np.testing.assert_array_equal(
        pictures(pipe, **options, guidance_interval=(100.0, 200.0)), plain
    )
    with pytest.raises(tx.NumericalError):
        pictures(pipe, **options, guidance_interval=(0.0, 1.0))


def test_cfg_pp_in_the_pipeline(pipe: tx.Pipeline) -> None:
    out = pipe("a red circle", num_inference_steps=3, sampler="euler_cfg_pp", seed=1)
    assert out.parameters["guidance_scale"] == 0.6
    one, zero = (
        pictures(pipe, sampler="euler_cfg_pp", guidance_scale=scale) for scale in (1.0, 0.0)
    )
    assert np.abs(one - zero).max() > 1e-3


def test_parameters_say_what_was_used(pipe: tx.Pipeline) -> None:
    out = pipe(
        "a red circle",
        num_inference_steps=2,
        guidance_scale=[3, 1],
        guidance_rescale=0.5,
        guidance_interval=(0.1, 5),
    )
    assert out.parameters["guidance_scale"] == (3.0, 1.0)
    assert out.parameters["guidance_rescale"] == 0.5
    assert out.parameters["guidance_interval"] == (0.1, 5.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance_scale": [5.0] * 3}, "guidance_scale: 3 values for 4 steps"),
        ({"guidance_scale": [5.0]}, "guidance_scale: 1 values for 4 steps"),
        ({"guidance_scale": []}, "guidance_scale"),
        ({"guidance_scale": [5.0, float("nan"), 1.0, 1.0]}, "guidance_scale"),
        ({"guidance_scale": "7.5"}, "guidance_scale"),
        ({"guidance_rescale": 1.5}, "guidance_rescale: got 1.5, allowed are numbers 0..1"),
        ({"guidance_rescale": "all"}, "guidance_rescale"),
        ({"guidance_interval": (5.0, 1.0)}, "guidance_interval: got"),
        ({"guidance_interval": (-1.0, 1.0)}, "guidance_interval"),
        ({"guidance_interval": (0.0, float("nan"))}, "guidance_interval"),
        ({"guidance_interval": 3.0}, "guidance_interval"),
        ({"guidance_interval": (0.0, 1.0, 2.0)}, "guidance_interval"),
        (
            {"guidance_interval": (0.0, 1.0), "sampler": "euler_cfg_pp"},
            r"guidance_interval.*None with CFG\+\+",
        ),
    ],
)
def test_bad_guidance(pipe: tx.Pipeline, options: dict[str, Any], message: str) -> None:
    with pytest.raises(tx.InvalidRequestError, match=message) as caught:
        pictures(pipe, **options)
    assert caught.value.details["param"] == message.partition(":")[0].partition(".")[0]


# --- what the core refuses of programs that no trace made

HALF = [("denoise", 0, 0, 1.0, 1.0), ("combine", 0, [("u", 0, 1.0)], 0.0)]


def native(instructions: list[tuple[Any, ...]]) -> _core.Program:
    return _core.Program(instructions, latents=1, outputs=1, result=0)


def test_the_core_takes_halves_rescale_and_threshold() -> None:
    program = native([*HALF, ("rescale", 0, 0.5), ("threshold", 0, 0, 0.9, 2.0)])
    assert program.denoise_count == 1


@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        ([("combine", 0, [("u", 0, 1.0)], 0.0)], "u0 is read before it is written"),
        ([*HALF, ("combine", 0, [("u", 1, 1.0)], 0.0)], "no register u1"),
        ([*HALF, ("combine", 0, [("u", 0, 1.0)] * 17, 0.0)], "17 sources"),
        ([("rescale", 0, 0.5)], "e0 is read before it is written"),
        ([*HALF, ("rescale", 3, 0.5)], "no register e3"),
        ([*HALF, ("rescale", 0, 1.5)], "RESCALE needs a share 0..1, got 1.5"),
        ([*HALF, ("rescale", 0, float("nan"))], "RESCALE needs a share"),
        ([*HALF, ("rescale", 0)], "operands"),
        ([("threshold", 0, 0, 1.1, 1.0)], "quantile 0..1, got 1.1"),
        ([("threshold", 0, 0, float("nan"), 1.0)], "quantile"),
        ([("threshold", 0, 0, 0.5, 0.0)], "positive largest bound"),
        ([("threshold", 0, 0, 0.5, float("inf"))], "positive largest bound"),
        ([("threshold", 0, 1, 0.5, 1.0)], "no register x1"),
        ([("combine", 0, [("v", 0, 1.0)], 0.0)], 'allowed are "x", "e" and "u"'),
    ],
)
def test_the_core_refuses(instructions: list[tuple[Any, ...]], message: str) -> None:
    with pytest.raises(tx.InvalidRequestError, match=message):
        native(instructions)


# --- samplers that run step by step


def test_step_by_step_samplers_take_one_guidance(pipe: tx.Pipeline) -> None:
    options = {"sampler": "dpm_adaptive", "sampler_options": {"rtol": 0.5, "atol": 0.5}}
    assert np.isfinite(pictures(pipe, guidance_scale=3.0, **options)).all()
    for given in (
        {"guidance_scale": [3.0] * 4},
        {"guidance_interval": (0.0, 5.0)},
        {"guidance_rescale": 0.7},
    ):
        (name,) = given
        with pytest.raises(tx.InvalidRequestError, match=f"{name}.*step-by-step"):
            pictures(pipe, **options, **given)
