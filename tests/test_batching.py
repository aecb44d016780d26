"""Shared runs of a batch: taken when they change nothing, left when they change a single bit."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import textopia_fast as tx
from tests.support.networks import tanh_network
from textopia_fast.batching import AUTO, SHARED_IMAGES, Batching


def row_mixing_network() -> bytes:
    """The network of the other tests, but each row also sees the mean over the rows of the run."""
    model = onnx.load_from_string(tanh_network())
    (last,) = (node for node in model.graph.node if "out_sample" in node.output)
    last.output[0] = "own"
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.asarray([0], np.int64), "rows_axis")
    )
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(np.asarray(1e-6, np.float32), "a_little")
    )
    model.graph.node.extend(
        [
            onnx.helper.make_node("ReduceMean", ["own", "rows_axis"], ["others"], keepdims=1),
            onnx.helper.make_node("Mul", ["others", "a_little"], ["leak"]),
            onnx.helper.make_node("Add", ["own", "leak"], ["out_sample"]),
        ]
    )
    return model.SerializeToString()


def batching_of(graph: bytes, images_per_run: int | str | None = AUTO) -> Batching:
    def make(images: int | None):
        denoiser = tx.Denoiser(graph, threads=1, images_per_run=images)
        return lambda shapes: denoiser

    return Batching(make, images_per_run)


def conditioning(batch: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(9)
    positive, negative = rng.standard_normal((2, batch, 6, 4)).astype(np.float32)
    return {"context": positive}, {"context": negative}


def halving_network() -> bytes:
    """e = x / 2, exactly; the other inputs count for nothing."""
    model = onnx.load_from_string(tanh_network())
    graph = model.graph
    del graph.node[:]
    graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(0, np.float32), "nothing"))
    graph.node.extend(
        [
            onnx.helper.make_node("Mul", ["sample", "half"], ["halved"]),
            onnx.helper.make_node("ReduceMax", ["context"], ["most"], keepdims=0),
            onnx.helper.make_node("Add", ["most", "timestep"], ["both"]),
            onnx.helper.make_node("Mul", ["both", "nothing"], ["zero"]),
            onnx.helper.make_node("Add", ["halved", "zero"], ["out_sample"]),
        ]
    )
    return model.SerializeToString()


@pytest.mark.parametrize("is_guided", [False, True])
def test_rows_that_stay_the_same_share_runs(is_guided):
    batching = batching_of(halving_network())
    cond, uncond = conditioning(5)
    chosen = batching.denoiser((5, 4, 8, 8), cond, uncond if is_guided else None)
    assert chosen is batching._shared(None)


@pytest.mark.parametrize("batch", [2, 3, 5, 8, 9])
@pytest.mark.parametrize("is_guided", [False, True])
def test_whatever_is_chosen_gives_every_image_as_it_is_alone(batch, is_guided):
    # Vectorised functions may round the odd elements at the end of a run differently: then the
    # images of some batches must run alone.
    batching = batching_of(tanh_network())
    cond, uncond = conditioning(batch)
    x = np.random.default_rng(1).standard_normal((batch, 4, 5, 3), np.float32)
    program = tx.trace("euler", tx.Schedule((9.0, 3.0, 1.0, 0.0), (900.0, 500.0, 100.0), 9.0))
    guidance = 3.0 if is_guided else 1.0
    chosen = batching.denoiser(x.shape, cond, uncond if is_guided else None)
    together = tx.sample(chosen, x, program, cond, uncond, guidance)
    for k in range(batch):
        alone = tx.sample(
            batching._alone(None),
            x[k : k + 1],
            program,
            {"context": cond["context"][k : k + 1]},
            {"context": uncond["context"][k : k + 1]},
            guidance,
        )
        np.testing.assert_array_equal(together[k], alone[0])


def test_a_leak_of_one_millionth_is_noticed():
    batching = batching_of(row_mixing_network())
    cond, uncond = conditioning(2)
    assert batching.denoiser((2, 4, 8, 8), cond, uncond) is batching._alone(None)


def test_shapes_are_compared_once_each():
    batching = batching_of(halving_network())
    cond, uncond = conditioning(3)
    for _ in range(2):
        batching.denoiser((3, 4, 8, 8), cond, uncond)
        batching.denoiser((3, 4, 4, 8), cond, uncond)
        batching.denoiser((3, 4, 4, 8), cond, None)
    assert len(batching._is_exact) == 3


def test_one_image_and_large_latents_run_alone():
    batching = batching_of(tanh_network())
    cond, uncond = conditioning(1)
    assert batching.denoiser((1, 4, 8, 8), cond, uncond) is batching._alone(None)
    assert batching.denoiser((2, 4, 64, 64), cond, uncond) is batching._alone(None)
    assert not batching._is_exact


@pytest.mark.parametrize("images_per_run", [None, 1, 4])
def test_a_number_is_taken_as_it_is(images_per_run):
    batching = batching_of(row_mixing_network(), images_per_run)
    cond, uncond = conditioning(SHARED_IMAGES)
    assert batching.denoiser((8, 4, 8, 8), cond, uncond) is batching._alone(None)
    assert not batching._is_exact


@pytest.mark.parametrize("images_per_run", ["all", 0, -1, 1.5])
def test_other_values_are_refused(images_per_run, tiny_model):
    with pytest.raises(tx.InvalidRequestError, match="images_per_run"):
        tx.Pipeline.from_pretrained(tiny_model, images_per_run=images_per_run)
