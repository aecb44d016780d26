"""What the core refuses when programs and denoisers are made."""

from __future__ import annotations

import pytest

import textopia_fast as tx
from tests.support.networks import tanh_network
from textopia_fast import _core
from textopia_fast.errors import InvalidRequestError


def test_programs_are_checked_when_they_are_made():
    def refused(match, rows, latents=1, outputs=1):
        with pytest.raises(InvalidRequestError, match=match):
            _core.Program(rows, latents=latents, outputs=outputs, result=0)

    refused("no register", [("denoise", 0, 5, 1.0, 1.0)])
    refused("read before it is written", [("combine", 0, [("e", 0, 1.0)], 0.0)])
    refused("not a finite number", [("combine", 0, [("x", 0, float("nan"))], 0.0)])
    refused("empty sum", [("combine", 0, [], 0.0)])
    refused("unknown instruction", [("jump", 1)])
    refused("not an instruction", [("denoise", "a", 0, 1.0, 1.0)])
    refused("low < high", [("clamp", 0, 0, 1.0, -1.0)])
    refused("a sum of 17 sources", [("combine", 0, [("x", 0, 1.0)] * 17, 0.0)])
    refused("positive factor", [("langevin_step", 0, 0, 0, 0.0, "sample")])


def test_graphs_that_are_no_denoiser():
    with pytest.raises(tx.UnsupportedModelError, match="no input named"):
        tx.Denoiser(tanh_network(), inputs={"noise_level": "nothing"})
    with pytest.raises(InvalidRequestError, match="unknown roles"):
        tx.Denoiser(tanh_network(), inputs={"time": "timestep"})
    with pytest.raises(InvalidRequestError, match="prediction"):
        tx.Denoiser(tanh_network(), prediction="noise")
