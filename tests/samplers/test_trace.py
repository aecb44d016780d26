"""What tracing records: draws in order, long sums split, registers reused, and what it refuses."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.samplers.helpers import assert_same_run
from textopia_fast.samplers import (
    schedules,
    trace,
)
from textopia_fast.tracing.program import (
    MAX_OPERANDS,
    Clamp,
    Combine,
    Denoise,
    LangevinStep,
    Program,
    Rescale,
    Step,
    Threshold,
)

LEVELS = schedules.explicit([4.0, 2.0, 1.0, 0.0])


def kinds(program: Program) -> list[str]:
    return [type(i).__name__ for i in program.instructions]


def operands(instruction: Combine) -> int:
    return preview_operands(instruction.terms) + (instruction.noise != 0.0)


def preview_operands(terms: tuple) -> int:
    return sum(2 if r.kind == "e" else 1 for r, _ in terms)


def test_a_scaled_latent_is_folded_into_the_networks_input_scale() -> None:
    def scaled(m: Any, x: Any, sigmas: Any) -> Any:
        return m.denoise(x / 4.0, sigmas[0])

    program = assert_same_run(scaled, LEVELS, "score")
    assert kinds(program) == ["Denoise", "Combine"]
    assert program.instructions[0].scale_in == 0.25


def test_a_scaled_sum_is_stored_once_and_scaled_at_the_network() -> None:
    def vp(m: Any, x: Any, sigmas: Any) -> Any:
        for s in sigmas[:-1]:
            y = x / 3.0
            x = y + 0.5 * m.denoise(y, s) + 0.1 * m.noise() + x
        return x

    program = assert_same_run(vp, LEVELS)
    assert (program.denoise_count, program.combine_count) == (3, 3)


def test_expressions_built_before_an_update_keep_their_meaning() -> None:
    def early(m: Any, x: Any, sigmas: Any) -> Any:
        sum_ = x + 0.5 * m.denoise(x, sigmas[0])
        before = 2.0 * sum_
        y = m.denoise(sum_, sigmas[1])
        return before + y + sum_

    assert_same_run(early, LEVELS)


def test_cancelled_terms_leave_no_operand() -> None:
    def euler_to_zero(m: Any, x: Any, sigmas: Any) -> Any:
        x0 = m.denoise(x, 3.0)
        return x + (x - x0) / 3.0 * (0.0 - 3.0)

    program = assert_same_run(euler_to_zero, LEVELS, "sample")
    assert kinds(program) == ["Denoise", "Combine"]
    assert len(program.instructions[1].terms) == 1


def test_an_unchanged_latent_costs_nothing() -> None:
    program = assert_same_run(lambda m, x, sigmas: x * 1.0 + 0, LEVELS)
    assert program.instructions == ()
    assert str(program.result) == "x0"


def test_a_latent_times_zero_is_zero() -> None:
    assert_same_run(lambda m, x, sigmas: 0.0 * x, LEVELS)


def test_repeated_use_of_one_draw_stores_it() -> None:
    def twice(m: Any, x: Any, sigmas: Any) -> Any:
        z = m.noise()
        y = x + 0.5 * z
        return m.denoise(y, 2.0) + 0.25 * z

    program = assert_same_run(twice, LEVELS)
    assert program.draw_count == 1


def test_draws_out_of_order_are_taken_in_order() -> None:
    def swapped(m: Any, x: Any, sigmas: Any) -> Any:
        first, second = m.noise(), m.noise()
        x = m.denoise(x + second, 2.0)
        return x + 0.5 * first

    program = assert_same_run(swapped, LEVELS)
    assert program.draw_count == 2


def test_two_draws_in_one_sum() -> None:
    program = assert_same_run(lambda m, x, sigmas: x + m.noise() - 0.5 * m.noise(), LEVELS)
    assert program.draw_count == 2
    assert all(isinstance(i, Combine) for i in program.instructions)


def test_a_draw_before_a_langevin_step_comes_first() -> None:
    def mixed(m: Any, x: Any, sigmas: Any) -> Any:
        z = m.noise()
        x = m.langevin_step(x, m.score(x, 2.0), snr=0.1)
        return x + z

    program = assert_same_run(mixed, LEVELS)
    assert kinds(program).index("LangevinStep") > [
        isinstance(i, Combine) and i.noise == 1.0 for i in program.instructions
    ].index(True)


def test_a_langevin_step_never_overwrites_its_score() -> None:
    program = trace("predictor_corrector", LEVELS, n_steps=3)
    steps = [i for i in program.instructions if isinstance(i, LangevinStep)]
    assert len(steps) == 9
    assert all(i.dst != i.score for i in steps)


def test_noise_alone_and_noise_in_a_preview() -> None:
    def noisy(m: Any, x: Any, sigmas: Any) -> Any:
        z = 3.0 * m.noise()
        x0 = m.denoise(z, 2.0)
        m.step(x0, denoised=x + z)
        return m.clamp(z, -1.0, 1.0) + x

    assert_same_run(noisy, LEVELS)


def test_unused_draws_are_dropped() -> None:
    def wasteful(m: Any, x: Any, sigmas: Any) -> Any:
        m.noise()
        return x + 0.0 * m.noise() + m.noise()

    assert trace(wasteful, LEVELS).draw_count == 1


def test_long_sums_are_split_at_what_a_kernel_reads() -> None:
    def long_sum(m: Any, x: Any, sigmas: Any) -> Any:
        history = []
        for i in range(20):
            history.append(m.denoise(x, 1.0 + i))
            x = sum(history) / len(history) + 0.1 * m.noise()
            m.step(x, denoised=sum(history))
        return x

    program = assert_same_run(long_sum, LEVELS)
    previews = [i.denoised for i in program.instructions if isinstance(i, Step)]
    assert max(map(preview_operands, previews)) <= MAX_OPERANDS
    widths = [operands(i) for i in program.instructions if isinstance(i, Combine)]
    assert max(widths) <= MAX_OPERANDS
    assert max(widths) >= MAX_OPERANDS - 2


def test_a_preview_holds_what_was_denoised_even_where_the_update_ran_in_place() -> None:
    program = assert_same_run("euler", LEVELS, "v_prediction")
    assert (program.x_registers, program.e_registers) == (1, 1)


def test_unused_results_do_not_hold_registers() -> None:
    def wasteful(m: Any, x: Any, sigmas: Any) -> Any:
        for i in range(5):
            m.denoise(x, 1.0 + i)
        return m.denoise(x, 1.0)

    assert trace(wasteful, LEVELS).e_registers == 1


def test_a_sampler_may_ignore_the_initial_latent() -> None:
    program = assert_same_run(lambda m, x, sigmas: m.denoise(m.noise(), 1.0), LEVELS)
    assert program.x_registers == 1


def test_options_reach_a_function_of_the_callers_own() -> None:
    def mine(m: Any, x: Any, sigmas: Any, factor: float = 1.0, **rest: Any) -> Any:
        return factor * x

    program = trace(mine, [1.0, 0.0], factor=3.0, anything=1)
    assert program.name == "mine"
    assert program.instructions[0].terms[0][1] == 3.0


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_random_samplers(data: st.DataObject) -> None:
    """Any straight-line sampler does the same traced and untraced."""
    plan = data.draw(
        st.lists(
            st.tuples(
                st.sampled_from(
                    ["denoise", "halves", "noise", "mix", "step", "clamp", "threshold", "langevin"]
                ),
                st.integers(0, 50),
                st.integers(0, 50),
                st.floats(-2.0, 2.0).map(lambda w: round(w, 3)),
            ),
            max_size=25,
        )
    )

    def sampler(m: Any, x: Any, sigmas: Any) -> Any:
        pool = [x]
        for kind, i, j, weight in plan:
            a, b = pool[i % len(pool)], pool[j % len(pool)]
            if kind == "denoise":
                pool.append(m.denoise(a * 0.5, 1.0 + abs(weight)))
            elif kind == "noise":
                pool.append(0.5 * a + m.noise())
            elif kind == "mix":
                pool.append(0.4 * a + 0.1 * weight * b)
            elif kind == "step":
                m.step(0.5 * a, denoised=0.5 * b)
            elif kind == "halves":
                pool += m.denoise_halves(a * 0.5, 1.0 + abs(weight))
            elif kind == "threshold":
                pool.append(m.threshold(a, 0.8, 1.0 + abs(weight)))
            elif kind == "clamp":
                pool.append(m.clamp(a, -1.0, 1.5))
            else:
                pool.append(m.langevin_step(0.1 * a, m.score(b, 2.0) - 3.0 * x, snr=0.05))
        return sum(pool[-3:], 0.0 * x)

    everything_is_used = [
        # Draws that nothing reads are dropped; a last sum over all of them keeps the streams equal.
        lambda m, x, sigmas: sampler(_Keeping(m, kept := []), x, sigmas) + 1e-3 * sum(kept, 0.0 * x)
    ]
    assert_same_run(everything_is_used[0], LEVELS)


class _Keeping:
    """An `m` that remembers its draws."""

    def __init__(self, m: Any, kept: list) -> None:
        self._m, self._kept = m, kept

    def noise(self) -> Any:
        self._kept.append(self._m.noise())
        return self._kept[-1]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._m, name)


def test_instruction_kinds_are_all_covered_here() -> None:
    program = trace("predictor_corrector", LEVELS)
    clipped = trace("ddim", LEVELS, clip=1.0)
    limited = trace("ddim", LEVELS, threshold=(0.9, 1.0)).rescaled(0.5)
    seen = {type(i) for p in (program, clipped, limited) for i in p.instructions}
    assert seen == {Denoise, Combine, Clamp, Threshold, Rescale, LangevinStep, Step}
