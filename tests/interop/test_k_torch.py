"""k-diffusion's functions on torch tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import textopia_fast as tx
from tests.golden.sampler_cases import initial_noise
from tests.support.networks import tanh_network
from textopia_fast.interop import k_diffusion
from textopia_fast.interop.k_diffusion import FUNCTIONS

torch = pytest.importorskip("torch")

# torch and NumPy disagree on the spelling of their array protocol.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

SIGMAS = k_diffusion.get_sigmas_exponential(5, 0.05, 12.0)


def model(x: Any, sigma: Any, gain: float = 0.4) -> Any:
    assert sigma.shape == (len(x),)
    assert sigma.dtype == x.dtype
    return (gain * x / (1 + sigma[:, None, None, None] ** 2)).tanh()


def test_levels_are_tensors() -> None:
    assert SIGMAS.dtype == torch.float32
    assert SIGMAS.device.type == "cpu"
    expected = k_diffusion.get_sigmas_exponential(5, 0.05, 12.0, device=None)
    np.testing.assert_array_equal(SIGMAS.numpy(), expected)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_tensors_go_in_and_out(name: str, dtype: Any) -> None:
    x = torch.from_numpy(initial_noise()).to(dtype) * SIGMAS[0].to(dtype)
    start = x.clone()
    seen: list[dict[str, Any]] = []
    torch.manual_seed(3)
    function = getattr(k_diffusion, name)
    got = function(model, x, SIGMAS, {"gain": 0.3}, seen.append, True)
    assert isinstance(got, torch.Tensor)
    assert got.dtype == seen[0]["denoised"].dtype == seen[0]["x"].dtype == dtype
    assert seen[0]["sigma"] is not None
    assert torch.equal(x, start)
    torch.manual_seed(3)
    again = function(model, x, SIGMAS, extra_args={"gain": 0.3}, disable=True)
    assert torch.equal(got, again)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_native_loop_draws_the_same_noise(name: str) -> None:
    denoiser = tx.Denoiser(tanh_network(has_condition=False), noise_input="sigma", threads=1)
    x = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(1)) * SIGMAS[0]

    def same(x: Any, sigma: Any) -> Any:
        s = sigma[:, None, None, None]
        return x - s * (0.7 * x / (1 + s**2).sqrt() + 0.002 * s).tanh()

    results = []
    for one in (denoiser, same):
        torch.manual_seed(5)
        results.append(getattr(k_diffusion, name)(one, x, SIGMAS, disable=True))
    assert isinstance(results[0], torch.Tensor)
    error = float((results[0] - results[1]).abs().max())
    assert error < 1e-4 * float(results[1].abs().max())
