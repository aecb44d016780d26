"""What every competitor of this task is given: the tokens of one prompt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from benchmarks.sd15.case import NetworkCase


@dataclass(frozen=True)
class Case(NetworkCase):
    PART = "text_encoder"

    tokens: int = 77
    vocabulary: int = 49408

    def feeds(self) -> dict[str, np.ndarray]:
        ids = np.random.default_rng(4).integers(0, self.vocabulary, (1, self.tokens))
        ids[:, 0], ids[:, -1] = self.vocabulary - 2, self.vocabulary - 1  # first and last of CLIP
        return {"input_ids": ids}
