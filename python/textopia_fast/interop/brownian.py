"""k-diffusion's BrownianTreeNoiseSampler on the native Brownian path."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from ..arrays import like
from ..checks import check_number, refuse
from ..errors import InvalidRequestError
from ..noise import Noise
from ..noise_streams import draw

__all__ = ["BrownianTreeNoiseSampler"]


class BrownianTreeNoiseSampler:
    """`noise_sampler(sigma, sigma_next)`: unit normal increments of a Brownian path over sigma.

    In distribution k-diffusion's; the path is `textopia_fast.Noise.brownian`'s and depends on the
    seeds alone, so it is also the same for other sigma_min and sigma_max.
    """

    def __init__(
        self,
        x: Any,
        sigma_min: Any,
        sigma_max: Any,
        seed: int | Sequence[int] | None = None,
        transform: Callable[[Any], Any] | None = None,
        cpu: bool = False,
    ) -> None:
        """Draws arrays like `x`.

        Args:
            x: [B, ...], NumPy or torch.
            sigma_min, sigma_max: The levels that will be asked for.
            seed: One (image k gets seed + k), one per image, or None for a random one.
            transform: From sigma to the time of the path, monotonic and not negative; None for
                sigma itself.
            cpu: The path is always computed on the CPU; taken for the sake of the signature.

        Raises:
            InvalidRequestError: x has no batch axis, a seed or a number of seeds does not fit, or
                the levels are not finite numbers.
        """
        if not getattr(x, "ndim", 0):
            refuse("x", x, "are arrays [B, ...]")
        self._x = x
        self._transform = transform
        self._time("sigma_min", sigma_min)
        self._time("sigma_max", sigma_max)
        seed = int.from_bytes(os.urandom(4), "little") if seed is None else seed
        self._stream = Noise.brownian(seed).stream(len(x))

    def __call__(self, sigma: Any, sigma_next: Any) -> Any:
        """(W(sigma_next) - W(sigma)) / sqrt(|sigma_next - sigma|), like x."""
        interval = self._time("sigma", sigma), self._time("sigma_next", sigma_next)
        noise = draw(self._stream, tuple(self._x.shape), interval)
        made = like(noise, self._x)
        return made.astype(self._x.dtype) if made is noise else made.to(self._x)

    def _time(self, name: str, sigma: Any) -> float:
        time = check_number(name, float(self._transform(sigma) if self._transform else sigma))
        if time < 0.0:
            raise InvalidRequestError(
                f"{name}: {time!r} on the path, allowed are numbers >= 0.", param=name
            )
        return time
