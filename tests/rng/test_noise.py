"""Noise that the caller gives, and the rule of one user at a time."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from textopia_fast import _core, errors


def test_an_array_is_returned_draw_by_draw():
    values = np.arange(3 * 2 * 4, dtype=np.float32).reshape(3, 2, 2, 2)
    stream = _core.NoiseStream.array(values)
    expected = values.copy()
    values[:] = 0  # the stream has its own copy
    for block in expected:
        np.testing.assert_array_equal(stream.draw(2, 4), block.reshape(2, 4))
    with pytest.raises(errors.InvalidRequestError, match=r"3 draws were given.* draw 4"):
        stream.draw(2, 4)


def test_a_draw_of_another_size_takes_nothing():
    stream = _core.NoiseStream.array(np.ones((1, 2, 3), np.float32))
    with pytest.raises(errors.InvalidRequestError, match=r"6 values, 2 x 4"):
        stream.draw(2, 4)
    assert (stream.draw(2, 3) == 1).all()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((2, 3)), "float64"),
        (np.zeros((2, 6), np.float32)[:, ::2], "contiguous"),
        (np.zeros(4, np.float32), "1 dimensions"),
        (np.zeros((0, 4), np.float32), "0 draws"),
    ],
)
def test_arrays_that_cannot_be_noise(values, words):
    with pytest.raises(errors.InvalidRequestError, match=words):
        _core.NoiseStream.array(values)


def test_two_threads_on_one_stream_get_an_error_and_not_a_race():
    stream = _core.NoiseStream.cuda([1])
    refusals = []

    def long_draw():
        try:
            stream.draw(1, 2_000_000)
        except errors.InvalidRequestError as error:
            refusals.append(error)

    thread = threading.Thread(target=long_draw)
    thread.start()
    while thread.is_alive() and not refusals:
        try:
            stream.draw(1, 16)
        except errors.InvalidRequestError as error:
            refusals.append(error)
    thread.join()
    assert refusals
    assert "in use" in str(refusals[0])
    stream.draw(1, 16)  # free again


def test_an_error_frees_the_stream():
    stream = _core.NoiseStream.philox([1])
    for _ in range(2):
        with pytest.raises(errors.InvalidRequestError, match="2 images"):
            stream.draw(2, 4)
    assert stream.draw(1, 4).shape == (1, 4)
