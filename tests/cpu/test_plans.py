"""Plans of products: numbers for any thread count, and bits that no plan changes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ops.test_attention import numbers as attention_numbers
from tests.support.fused import rounded, session, to_bf16
from textopia_fast import _core
from textopia_fast.errors import InvalidRequestError

THREADS = [1, 2, 3, 16, 64]

# rows, planes, halo, blocks, taps, panels, phases: layers of Stable Diffusion 1.5, and a small one
SHAPES = [
    (2 * 65 * 65, 1, 66, 10, 9, 10, 1),  # 64 x 64, 320 to 320
    (2 * 33 * 33, 1, 34, 20, 9, 20, 1),
    (2 * 9 * 9, 1, 10, 80, 9, 40, 1),  # 8 x 8, 2560 to 1280
    (2 * 33 * 33, 4, 34, 10, 9, 10, 1),  # stride 2
    (513 * 513, 1, 514, 4, 9, 4, 1),  # 512 x 512, 128 to 128
    (2 * 17 * 17, 1, 18, 40, 4, 40, 4),  # enlarged
    (8192, 1, 0, 10, 1, 160, 1),  # GEGLU
    (128, 1, 0, 40, 1, 640, 1),
    (8192, 1, 0, 40, 1, 10, 1),
    (77, 1, 0, 24, 1, 24, 1),
    (1, 1, 0, 1, 1, 1, 1),
]


def tasks_of(shape, plan):
    return -(-shape[0] // plan[0]) * -(-shape[5] // plan[1])


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("shape", SHAPES)
def test_work_is_spread_over_the_threads(shape, threads):
    rows, _, _, blocks, taps, panels, _ = shape
    plan = _core.candidate_plans(shape, threads)[0]
    assert 1 <= plan[0] <= min(rows, 4096)
    assert 1 <= plan[1] <= panels
    assert plan[2] % taps == 0
    assert taps <= plan[2] <= blocks * taps
    # What the busiest thread does, over an equal share. Pieces of 32 rows of one panel are the
    # smallest that
    # are worth a task.
    finest = -(-rows // 32) * panels
    busiest = -(-tasks_of(shape, plan) // threads) * plan[0] * plan[1]
    share = rows * panels / min(threads, finest)
    assert busiest <= 1.5 * share


@pytest.mark.parametrize("shape", SHAPES)
def test_candidates_are_possible_and_differ(shape):
    for threads in THREADS:
        plans = _core.candidate_plans(shape, threads)
        assert len(plans) == len(set(plans)) <= 9
        _core.KeptPlans([(shape, plan) for plan in plans])  # would refuse one that is not


@pytest.mark.parametrize(
    "plan",
    [(0, 1, 1), (9, 1, 1), (-1, 1, 1), (8, 0, 1), (8, 3, 1), (8, 1, 0), (8, 1, 19), (4097, 1, 1)],
)
def test_impossible_plans_are_refused(plan):
    shape = (8 if plan[0] < 4097 else 9000, 1, 0, 2, 9, 2, 1)
    with pytest.raises(InvalidRequestError, match="are not possible for"):
        _core.KeptPlans([(shape, plan)])
    with pytest.raises(InvalidRequestError, match="below 1"):
        _core.KeptPlans([((0, 1, 0, 2, 9, 2, 1), (1, 1, 1))])


CHANNELS, COLUMNS, SIDE = 70, 90, 13
CONV_SHAPE = (2 * (SIDE + 1) ** 2, 1, SIDE + 2, 3, 9, 3, 1)


@pytest.fixture
def layer():
    """Makes sessions of one convolution, and its feeds."""
    if "avx512_bf16" not in _core.supported_matrix_units():
        pytest.skip("no avx512_bf16 here")
    rng = np.random.default_rng(0)
    x = to_bf16(rng.standard_normal((2, SIDE, SIDE, CHANNELS)))
    weight = rng.standard_normal((COLUMNS, 3, 3, CHANNELS)).astype(np.float32) / 25
    constants = {"w": _core.pack_conv(weight), "b": np.ones(COLUMNS, np.float32)}

    def make(threads, plans=None):
        sizes = {"in_channels": CHANNELS, "out_channels": COLUMNS, "weight_format": "bf16_panels"}
        return session(
            *("avx512_bf16", "Conv", {"x": x}, constants),
            **{"rank": 4, "threads": threads, "plans": plans, **sizes},
        )

    return make, {"x": x}


def test_the_threads_of_the_session_count(layer):
    make, feeds = layer
    for threads in THREADS:
        trials = _core.PlanTrials()
        make(threads, trials).run(feeds)
        ((shape, tried),) = trials.trials()
        assert shape == CONV_SHAPE
        assert [plan for plan, _ in tried] == _core.candidate_plans(CONV_SHAPE, threads)


def test_no_plan_and_no_thread_count_changes_a_bit(layer):
    make, feeds = layer
    expected = make(1).run(feeds)["y"]
    for threads in THREADS:
        assert np.array_equal(make(threads).run(feeds)["y"], expected)
    rng = np.random.default_rng(1)
    for _ in range(20):
        plan = tuple(int(rng.integers(1, most + 1)) for most in (CONV_SHAPE[0], 3, 27))
        kept = make(2, _core.KeptPlans([(CONV_SHAPE, plan)]))
        assert np.array_equal(kept.run(feeds)["y"], expected), plan


def test_thread_counts_do_not_change_attention_or_norms():
    if "avx512_bf16" not in _core.supported_matrix_units():
        pytest.skip("no avx512_bf16 here")
    q, k, v, _ = attention_numbers((1, 300, 333, 2, 40))
    qkv = {name: to_bf16(value) for name, value in zip("qkv", (q, k, v), strict=True)}
    x = {"x": to_bf16(rounded(np.random.default_rng(0).standard_normal((2, 40, 40, 64))))}
    scales = {"g": np.ones(64, np.float32), "b": np.ones(64, np.float32)}
    for op, inputs, constants, rank, attributes in (
        ("Attention", qkv, {}, 3, {"heads": 2}),
        ("GroupNorm", x, scales, 4, {"groups": 32}),
        ("LayerNorm", x, scales, 4, {}),
    ):
        made = [
            session(
                *("avx512_bf16", op, inputs, constants),
                **{"rank": rank, "threads": threads, **attributes},
            )
            for threads in THREADS
        ]
        results = [one.run(inputs)["y"] for one in made]
        assert all(np.array_equal(result, results[0]) for result in results[1:]), op


def test_trials_visit_every_plan_and_end(layer):
    make, feeds = layer
    trials = _core.PlanTrials()
    opened = make(2, trials)
    expected = make(2).run(feeds)["y"]
    assert trials.missing == trials.done == 0
    for _ in range(200):
        assert np.array_equal(opened.run(feeds)["y"], expected)
        if trials.missing == 0:
            break
    assert trials.missing == 0
    ((_, tried),) = trials.trials()
    assert all(len(seconds) >= 2 and min(seconds) > 0 for _, seconds in tried)
    best = min(min(seconds) for _, seconds in tried)
    for plan, seconds in tried:
        assert len(seconds) >= 5 or min(seconds) > best, plan
    assert trials.done == sum(len(seconds) for _, seconds in tried)
