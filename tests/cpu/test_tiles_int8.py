"""Layers in int8 over an emulation of the tiles: bit for bit what plain code gives."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cpu.test_tiles import integers, pointer, tiles
from tests.ops.test_conv import SHAPES, attributes_of, numbers
from tests.ops.test_int8 import run
from tests.support.fused import from_bf16, to_bf16
from textopia_fast import _core

__all__ = ["tiles"]  # the compiled library, a fixture

# more channels than one step holds, on one tile of rows and on many; linear layers are 1 x 1
ALL = [*SHAPES, (1, 1, 29, 129, 70, 1, 1, 0, 0), (1, 10, 150, 64, 33, 1, 1, 0, 0)]


@pytest.mark.parametrize("zero_point", [128, 24])
@pytest.mark.parametrize("shape", ALL)
def test_conv(tiles, shape, zero_point):
    x, weight, bias, _ = numbers(shape)
    panels = _core.pack_conv(weight, upsample=bool(shape[7]), int8=True)
    sizes = {"zero_point": zero_point, **attributes_of(shape)}
    exact = run("scalar", "Conv", {"x": to_bf16(x), "bias": bias}, panels, rank=4, **sizes)
    out = np.zeros(exact.shape, np.uint16)
    arrays = (to_bf16(x), panels, bias)
    tiles.emulated_int8_conv(*map(pointer, arrays), integers(*shape, zero_point), pointer(out))
    assert (from_bf16(out) == exact).all()
