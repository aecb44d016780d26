"""Graphs beside the loop's: what the engine makes of a time graph, a prompt graph, shared rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

import textopia_fast as tx
from textopia_fast import _core
from textopia_fast.denoiser import Hoisted
from textopia_fast.errors import InvalidRequestError, UnsupportedModelError

FLOAT, INTEGER = TensorProto.FLOAT, TensorProto.INT64
RNG = np.random.default_rng(4)
START = RNG.standard_normal((3, 5), np.float32)
POSITIVE, NEGATIVE = RNG.standard_normal((2, 3, 5), np.float32)
SCALE = np.float32(0.125)
LEVELS = [9.0, 4.0, 1.0]


def session(nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any]) -> _core.Session:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "graph",
        [info(name, *value) for name, value in inputs.items()],
        [info(name, *value) for name, value in outputs.items()],
        [
            helper.make_tensor("scale", FLOAT, [], [SCALE]),
            helper.make_tensor("two", FLOAT, [], [2]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return tx._ort.create_session(model.SerializeToString(), label="graph", threads=1)


def time_graph(rows: int | str | None = "steps", dtype: int = FLOAT) -> _core.Session:
    """features = (t * scale, 2 * t * scale); `rows` of the timestep: free, fixed, or a scalar."""
    make = helper.make_node
    nodes = [
        make("Cast", ["timestep"], ["t"], to=FLOAT),
        make("Mul", ["t", "scale"], ["scaled"]),
        make("Reshape", ["scaled", "column"], ["one"]),
        make("Mul", ["one", "two"], ["twice"]),
        make("Concat", ["one", "twice"], ["time_features"], axis=1),
    ]
    column = make("Constant", [], ["column"], value_ints=[-1, 1])
    shape = [] if rows is None else [rows]
    features = {"time_features": (FLOAT, [rows or 1, 2])}
    return session([column, *nodes], {"timestep": (dtype, shape)}, features)


def prompt_graph(rows: int | str = "prompts") -> _core.Session:
    """prompt.0 = text * scale, prompt.1 = text * 2."""
    make = helper.make_node
    nodes = [
        make("Mul", ["text", "scale"], ["prompt.0"]),
        make("Mul", ["text", "two"], ["prompt.1"]),
    ]
    shape = (FLOAT, [rows, 5])
    return session(nodes, {"text": shape}, {"prompt.0": shape, "prompt.1": shape})


def body(shares: bool, rows: int | str = "rows") -> _core.Session:
    """x * prompt.0 + f0 + f1 + prompt.1, where x and f may have half the rows of the prompt."""
    make = helper.make_node
    nodes = [
        make("Split", ["time_features", "parts"], ["f0", "f1"], axis=1),
        make("Add", ["f0", "f1"], ["f"]),
        make("Shape", ["sample"], ["b"], end=1),
        make("Shape", ["prompt.0"], ["p"], end=1),
        make("Div", ["p", "b"], ["times"]),
        make("Concat", ["times", "one"], ["repeats"], axis=0),
        make("Tile", ["sample", "repeats"], ["x"]),
        make("Tile", ["f", "repeats"], ["fs"]),
        make("Mul", ["x", "prompt.0"], ["product"]),
        make("Add", ["product", "fs"], ["sum"]),
        make("Add", ["sum", "prompt.1"], ["out_sample"]),
    ]
    constants = [
        make("Constant", [], ["parts"], value_ints=[1, 1]),
        make("Constant", [], ["one"], value_ints=[1]),
    ]
    prompts = "prompt_rows" if shares else rows
    return session(
        [*constants, *nodes],
        {
            "sample": (FLOAT, [rows, 5]),
            "time_features": (FLOAT, [rows, 2]),
            "prompt.0": (FLOAT, [prompts, 5]),
            "prompt.1": (FLOAT, [prompts, 5]),
        },
        {"out_sample": (FLOAT, [prompts, 5])},
    )


def split(
    shares: bool = True,
    images: int | None = None,
    device: str | _core.Gpu = "cpu",
    **graphs: _core.Session,
) -> tx.Denoiser:
    hoisted = {"time": time_graph(), "prompt": prompt_graph(), **graphs}
    network = hoisted.pop("body", None) or body(shares)
    return tx.Denoiser(
        network,
        inputs={"noise_level": "time_features"},
        images_per_run=images,
        device=device,
        hoisted=Hoisted(**hoisted, shares_prefix=shares),
    )


def run(denoiser: tx.Denoiser, guidance: list[float], **options: Any) -> np.ndarray:
    rows: list[tuple] = []
    for step, level in enumerate(LEVELS):
        rows.append(("denoise", 0, 0, 0.5, level))
        rows.append(("combine", 0, [("x", 0, 0.25), ("e", 0, 1.0)], 0.0))
        rows.append(("step", step, 0, []))
    program = _core.Program(rows, latents=1, outputs=1, result=0)
    options = {"cond": {"text": POSITIVE}, "uncond": {"text": NEGATIVE}, **options}
    return _core.sample(denoiser._native, program, START, guidance=guidance, **options)


def expected(guidance: list[float], positive: np.ndarray = POSITIVE) -> np.ndarray:
    x = START.astype(np.float64)
    for level, g in zip(LEVELS, guidance, strict=True):
        halves = [
            0.5 * x * text * SCALE + 3 * level * SCALE + 2 * text for text in (NEGATIVE, positive)
        ]
        x = 0.25 * x + (1 - g) * halves[0] + g * halves[1]
    return x


@pytest.mark.parametrize("guidance", [[3.0] * 3, [1.0] * 3, [2.0, 1.0, 4.0]])
@pytest.mark.parametrize("images", [None, 1, 2])
@pytest.mark.parametrize("shares", [True, False])
def test_the_parts_give_the_whole(shares: bool, images: int | None, guidance: list[float]) -> None:
    found = run(split(shares, images), guidance)
    np.testing.assert_allclose(found, expected(guidance), rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("rows", ["steps", "batch", 1, 2, None])
@pytest.mark.parametrize("dtype", [FLOAT, INTEGER, TensorProto.FLOAT16])
def test_timesteps_of_every_form(rows: int | str | None, dtype: int) -> None:
    guidance = [3.0] * 3
    found = run(split(time=time_graph(rows, dtype)), guidance)
    np.testing.assert_allclose(found, expected(guidance), rtol=2e-6, atol=2e-6)


def test_graphs_of_a_fixed_number_of_rows() -> None:
    guidance = [3.0] * 3
    denoiser = split(False, prompt=prompt_graph(3), body=body(False, 3))
    np.testing.assert_allclose(run(denoiser, guidance), expected(guidance), rtol=2e-6, atol=2e-6)
    with pytest.raises(InvalidRequestError, match="takes exactly 4 rows a run, but 6 are needed"):
        run(split(prompt=prompt_graph(4)), guidance)


def test_conditioning_is_that_of_all_graphs() -> None:
    denoiser = split()
    assert denoiser.conditioning_dtypes == {"text": "float32"}
    with pytest.raises(InvalidRequestError, match='"text" is missing'):
        run(denoiser, [1.0], cond={}, uncond={})
    with pytest.raises(InvalidRequestError, match=r'no conditioning input "prompt\.0"'):
        run(denoiser, [1.0], cond={"text": POSITIVE, "prompt.0": POSITIVE}, uncond={})


def test_levels_that_no_integer_holds() -> None:
    denoiser = split(time=time_graph("steps", INTEGER))
    program = _core.Program([("denoise", 0, 0, 1.0, 1e30)], latents=1, outputs=1, result=0)
    with pytest.raises(InvalidRequestError, match="does not fit the graph's integer"):
        _core.sample(denoiser._native, program, START, cond={"text": POSITIVE})


def test_graphs_that_do_not_fit() -> None:
    with pytest.raises(UnsupportedModelError, match="a time graph has one input"):
        split(time=prompt_graph())
    with pytest.raises(UnsupportedModelError, match=r'no input named "prompt\.1"'):
        split(
            body=session(
                [
                    helper.make_node("Add", ["sample", "prompt.0"], ["out_sample"]),
                    helper.make_node("Identity", ["time_features"], ["unused"]),
                ],
                {
                    "sample": (FLOAT, ["b", 5]),
                    "time_features": (FLOAT, ["b", 2]),
                    "prompt.0": (FLOAT, ["b", 5]),
                },
                {"out_sample": (FLOAT, ["b", 5])},
            )
        )
    with pytest.raises(UnsupportedModelError, match="a free number of images"):
        split(True, body=body(True, 3))


def constant_network(value: float, columns: int = 5) -> _core.Session:
    """`value` everywhere, whatever the sample."""
    nodes = [
        helper.make_node("Constant", [], ["value"], value_float=value),
        helper.make_node("Constant", [], ["zero"], value_float=0.0),
        helper.make_node("Mul", ["sample", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "value"], ["out_sample"]),
    ]
    shape = (FLOAT, ["rows", columns])
    return session(nodes, {"sample": shape, "timestep": (FLOAT, [])}, {"out_sample": shape})


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (1, "1"),
        (2, "11"),
        (3, "101"),
        (5, "10001"),
        (19, "1" + 17 * "0" + "1"),
        (20, "11" + 16 * "0" + "11"),
        (23, "11" + 19 * "0" + "11"),
    ],
)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_another_network_runs_the_first_and_the_last_tenth(
    count: int, expected: str, guidance: float
) -> None:
    denoiser = tx.Denoiser(constant_network(0.0), hoisted=Hoisted(ends=constant_network(1.0)))
    rows: list[tuple] = []
    for step in range(count):  # every evaluation is a binary digit of the result
        rows.append(("denoise", 0, 0, 1.0, 9.0))
        rows.append(("combine", 0, [("x", 0, 2.0), ("e", 0, 1.0)], 0.0))
        rows.append(("step", step, 0, []))
    program = _core.Program(rows, latents=1, outputs=1, result=0)
    start = np.zeros((3, 5), np.float32)
    found = _core.sample(denoiser._native, program, start, guidance=[guidance])
    assert (found == int(expected, 2)).all()


def test_a_network_of_another_form_for_the_ends_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="takes or gives something else than"):
        tx.Denoiser(constant_network(0.0), hoisted=Hoisted(ends=constant_network(1.0, 6)))
