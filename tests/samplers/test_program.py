"""Programs are plain data: printable, comparable, hashable, picklable, and flat for the binding."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from tests.samplers.test_same_as_function import OPTIONS
from textopia_fast import _core
from textopia_fast.samplers import Program, langevin_program, schedules, trace
from textopia_fast.tracing.program import Combine, Register
from textopia_fast.tracing.reference import run
from textopia_fast.tracing.registry import SAMPLERS

LEVELS = schedules.explicit([4.0, 2.0, 0.0])


def test_the_table_is_readable() -> None:
    assert str(trace("euler", LEVELS)) == "\n".join(
        [
            "euler: 2 steps, 2 DENOISE, 2 COMBINE, 0 draws; registers 1 x + 1 e;"
            " x0 = 4*noise; predicts epsilon; result x0",
            "DENOISE        e0  <- 0.242535625*x0  at 4",
            "COMBINE        x0  <- +1*x0  -2*e0",
            "STEP 0         x0  denoised +1*x0  -2*e0",
            "DENOISE        e0  <- 0.447213595*x0  at 2",
            "COMBINE        x0  <- +1*x0  -2*e0",
            "STEP 1         x0  denoised +1*x0",
        ]
    )


def test_the_table_shows_every_instruction() -> None:
    text = str(trace("predictor_corrector", LEVELS)) + str(trace("ddim", LEVELS, clip=2.0))
    assert "LANGEVIN_STEP  x0  <- x0 along x1  factor 0.0512, norm per sample" in text
    assert "*noise" in text
    assert "to [-2, 2]" in text


@pytest.mark.parametrize("name", SAMPLERS)
def test_equal_programs_are_equal(name: str) -> None:
    program = trace(name, LEVELS)
    again = trace(name, schedules.explicit([4.0, 2.0, 0.0]))
    assert program == again
    assert hash(program) == hash(again)
    assert pickle.loads(pickle.dumps(program)) == program
    assert program != trace(name, schedules.explicit([4.0, 1.0, 0.0]))


def test_programs_do_not_change() -> None:
    program = trace("euler", LEVELS)
    with pytest.raises(AttributeError):
        program.name = "heun"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        program.instructions[0].scale_in = 1.0  # type: ignore[misc]


def test_native_form() -> None:
    program = trace("predictor_corrector", LEVELS, "score", snr=0.5)
    assert program.to_native()[:5] == [
        ("denoise", 0, 0, 1.0, 4.0),
        ("combine", 1, [("e", 0, 1.0)], 0.0),
        ("langevin_step", 0, 0, 1, 0.5, "sample"),
        ("denoise", 0, 0, 1.0, 4.0),
        ("combine", 1, [("x", 0, 1.0), ("e", 0, 12.0)], 12.0**0.5),
    ]
    assert program.to_native()[5] == ("step", 0, 1, [("x", 0, 1.0), ("e", 0, 16.0)])
    clipped = trace("ddim", schedules.explicit([1.0, 0.0]), clip=0.5)
    assert clipped.to_native()[2] == ("clamp", 0, 0, -0.5, 0.5)


@pytest.mark.parametrize("name", SAMPLERS)
def test_native_form_is_plain_data(name: str) -> None:
    for kind, *fields in trace(name, LEVELS).to_native():
        for field in fields:
            assert type(field) in (int, float, str, list), (kind, field)
            if isinstance(field, list):
                assert all(tuple(map(type, term)) == (str, int, float) for term in field)


@pytest.mark.parametrize(("name", "options"), OPTIONS)
def test_the_core_accepts_every_program(name: str, options: dict) -> None:
    program = trace(name, LEVELS, **options)
    _core.Program(
        program.to_native(),
        latents=program.x_registers,
        outputs=program.e_registers,
        result=program.result.index,
    )


def test_counts() -> None:
    program = trace("annealed_langevin", LEVELS, n_steps=3)
    counts = (program.step_count, program.denoise_count, program.combine_count, program.draw_count)
    assert counts == (2, 7, 7, 6)
    assert program.noise_levels == (4.0, 4.0, 4.0, 2.0, 2.0, 2.0, 2.0)


def test_guidance_mixes_both_halves_of_a_network_output() -> None:
    x = np.ones((1, 2))
    program = trace("euler", schedules.explicit([2.0, 1.0, 0.0]))

    def both(x: np.ndarray, _: float) -> tuple[np.ndarray, np.ndarray]:
        return np.full_like(x, 1.0), np.full_like(x, 3.0)

    got = run(program, both, x, lambda: x, guidance=2.5)
    np.testing.assert_allclose(got, x - 2.0 * (1.0 + 2.5 * 2.0))
    varied = run(program, both, x, lambda: x, guidance=lambda i: (2.5, 0.0)[i])
    np.testing.assert_allclose(varied, x - (1.0 + 2.5 * 2.0) - 1.0)


def test_the_reference_keeps_float32() -> None:
    x = np.ones((1, 2), np.float32)
    program = trace("predictor_corrector", LEVELS)
    assert run(program, lambda x, _: 0.5 * x, x, lambda: x).dtype == np.float32


def test_langevin_program() -> None:
    program = langevin_program(2.0, 3, eta=0.1)
    assert isinstance(program, Program)
    assert (program.denoise_count, program.draw_count, program.step_count) == (3, 3, 3)
    assert program.noise_levels == (2.0, 2.0, 2.0)
    assert program.initial_scale == 2.0
    update = program.instructions[1]
    assert isinstance(update, Combine)
    assert update.terms[0] == (Register("x", 0), 1.0)
    assert update.terms[1][1] == pytest.approx(0.1)
    assert update.noise == pytest.approx(0.2**0.5)
    told = langevin_program(
        2.0, 3, prediction="epsilon", noise_level=17.0, denoise=True, initial_scale=1.0
    )
    assert told.noise_levels == (17.0,) * 4
    assert told.initial_scale == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2.0, 0), "steps: got 0"),
        ((2.0, 1.5), "steps: got 1.5"),
        ((0.0, 3), "sigmas"),
        ((-1.0, 3), "sigmas"),
    ],
)
def test_langevin_program_refuses(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        langevin_program(*arguments)
