"""BLEND of csrc/engine/program.h: target = mask * x + (1 - mask) * (known_weight * known +
noise_weight * noise), for inpainting.

Bound by launch latency at latent sizes; 20 bytes an element.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import triton
import triton.language as tl

from .variant import Check, Variant, compare

BLOCK = 1024


@triton.jit
def blend(x, target, mask, known, noise, known_weight, noise_weight, count, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    is_here = at < count
    paint = tl.load(mask + at, mask=is_here, other=0.0)
    value = tl.load(x + at, mask=is_here, other=0.0)
    kept = known_weight * tl.load(known + at, mask=is_here, other=0.0)
    kept += noise_weight * tl.load(noise + at, mask=is_here, other=0.0)
    tl.store(target + at, paint * value + (1.0 - paint) * kept, mask=is_here)


PARAMETERS = {
    **dict.fromkeys(("x", "target", "mask", "known", "noise"), "*fp32"),
    "known_weight": "fp32",
    "noise_weight": "fp32",
    "count": "i32",
}


def variants() -> Iterator[Variant]:
    yield Variant("blend", "fp32", "any", PARAMETERS, {"BLOCK": BLOCK}, fuses_fma=False)


def reference(x, mask, known, noise, known_weight: float, noise_weight: float) -> np.ndarray:
    """float64, of x's shape."""
    return mask * x + (1 - mask) * (known_weight * known + noise_weight * noise)


def check(launch, variant: Variant, rng: np.random.Generator) -> Iterator[Check]:
    for count in (1, 1023, 2050):
        x, known, noise = rng.standard_normal((3, count), np.float32)
        mask = rng.random(count, np.float32).round(1)
        target = np.zeros_like(x)
        arguments = {"x": x, "target": target, "mask": mask, "known": known, "noise": noise}
        numbers = {"known_weight": 0.75, "noise_weight": 0.5, "count": count}
        launch(variant, (-(-count // BLOCK), 1, 1), arguments | numbers)
        doubles = (a.astype(np.float64) for a in (x, mask, known, noise))
        yield compare(f"{count} elements", target, reference(*doubles, 0.75, 0.5), 1e-6)
