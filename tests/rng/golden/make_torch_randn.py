"""Writes torch_randn.json: draws of torch.randn from CPU generators, as checksums and first values.

Run with torch on an x86 CPU that has AVX2 (elsewhere torch's own last bits differ):

    python tests/rng/golden/make_torch_randn.py
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

# Every series is drawn from one generator, so that the order of small and large draws counts.
SERIES = [
    (0, [16]),
    (1, [1, 1, 2, 15, 16, 1, 3]),
    (42, [17, 31, 33, 100, 7, 4096, 5, 1]),
    (2**32 - 1, [16384, 16384, 16384]),
    (2**32 + 7, [16, 15]),
    (2**63 - 1, [65539, 1, 1_000_003]),
]


def describe(values: torch.Tensor) -> dict[str, object]:
    bits = values.numpy().view("uint32")
    return {
        "count": bits.size,
        "first_bits": [int(word) for word in bits[:4]],
        "sha256": hashlib.sha256(bits.tobytes()).hexdigest(),
    }


def main() -> None:
    series = []
    for seed, counts in SERIES:
        generator = torch.Generator().manual_seed(seed)
        draws = [describe(torch.randn(count, generator=generator)) for count in counts]
        series.append({"seed": seed, "draws": draws})
    document = {
        "made_by": "tests/rng/golden/make_torch_randn.py",
        "torch": torch.__version__,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "series": series,
    }
    Path(__file__).with_name("torch_randn.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
