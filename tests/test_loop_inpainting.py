"""Inpainting in the native loop: BLEND, against the reference executor."""

from __future__ import annotations

import numpy as np
import pytest

import textopia_fast as tx
from tests.support.networks import tanh_formula, tanh_network
from tests.test_loop import CONFIG, assert_close, program_of, random_latents
from textopia_fast import _core
from textopia_fast.errors import InvalidRequestError
from textopia_fast.samplers import from_config, trace_plan
from textopia_fast.tracing import reference


def painted(sampler: str, steps: int = 6) -> tx.Program:
    return trace_plan(from_config(CONFIG, steps, sampler=sampler), inpaint=True)


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "heun", "ddim", "dpmpp_2m"])
@pytest.mark.parametrize("batch", [1, 3])
def test_blending_is_the_references(sampler, batch):
    program = painted(sampler)
    denoiser = tx.Denoiser(tanh_network(has_condition=False), images_per_run=1)
    x, known, known_noise = (random_latents(batch, seed) for seed in range(3))
    mask = np.random.default_rng(3).random((batch, 1, 5, 3)).round().astype(np.float32)
    mask[0, 0, 0] = 0.25  # soft masks are allowed
    given = {"known": known, "mask": mask, "known_noise": known_noise}
    noise = tx.Noise.philox(list(range(batch)))
    found = tx.sample(denoiser, x, program, noise=noise, **given)
    stream = noise.stream(batch)
    expected = reference.run(
        program,
        tanh_formula,
        x.astype(np.float64),
        lambda: stream.draw(batch, x[0].size).reshape(x.shape).astype(np.float64),
        **given,
    )
    assert_close(found, expected)
    rest = np.broadcast_to(mask == 0, x.shape)
    np.testing.assert_array_equal(found[rest], known[rest])
    np.testing.assert_array_equal(x, random_latents(batch, 0))


def test_what_blending_needs():
    denoiser = tx.Denoiser(tanh_network(has_condition=False))
    x = random_latents(2)
    good = {"known": x, "mask": np.ones((2, 1, 5, 3)), "known_noise": x}
    for name in good:
        missing = {key: value for key, value in good.items() if key != name}
        with pytest.raises(InvalidRequestError, match=name):
            tx.sample(denoiser, x, painted("euler"), **missing)
        with pytest.raises(InvalidRequestError, match=name):
            tx.sample(denoiser, x, program_of("euler"), **{name: good[name]})
    bad = {
        "known": [random_latents(3), np.full((2, 4, 5, 3), np.nan), "latents"],
        "mask": [np.full((2, 1, 5, 3), 1.5), np.full((2, 1, 5, 3), -0.1), np.ones((2, 1, 5, 4))],
        "known_noise": [random_latents(1, size=(3, 5)), np.full((2, 4, 5, 3), np.inf)],
    }
    for name, values in bad.items():
        for value in values:
            with pytest.raises(InvalidRequestError, match=name):
                tx.sample(denoiser, x, painted("euler"), **{**good, name: value})


def test_the_core_checks_blends():
    step = ("step", 0, 0, [])
    _core.Program([("blend", 0, 0, 1.0, 0.5), step], latents=1, outputs=0, result=0)
    for bad in (
        ("blend", 0, 1, 1.0, 0.0),
        ("blend", 2, 0, 1.0, 0.0),
        ("blend", 0, 0, float("nan"), 0.0),
        ("blend", 0, 0, 1.0, float("inf")),
        ("blend", 0, 0, 1.0),
    ):
        with pytest.raises(InvalidRequestError, match="program"):
            _core.Program([bad, step], latents=2, outputs=0, result=0)
    program = _core.Program([("blend", 0, 0, 1.0, 0.5), step], latents=1, outputs=0, result=0)
    assert program.blends
    denoiser, x = tx.Denoiser(tanh_network(has_condition=False))._native, random_latents(1)
    with pytest.raises(InvalidRequestError, match="known"):
        _core.sample(denoiser, program, x)
    with pytest.raises(InvalidRequestError, match="mask"):
        _core.sample(denoiser, program, x, known=x, mask=random_latents(2), known_noise=x)
