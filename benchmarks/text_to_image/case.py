"""What every competitor of this task is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from textopia_fast.errors import ModelError
from textopia_fast.models import open_directory

STEPS = 20
GUIDANCE = 7.5
SEED = 7
PROMPT = "a red circle on a blue background"
FALLBACK = Path(__file__).parent.parent.parent / "tests" / "golden" / "tiny_sd"


@dataclass(frozen=True)
class Case:
    directory: Path
    model: str
    images: int = 1
    threads: int | None = None  # of a graph run; None: as many as there are cores
    # Ours only. 1, the default of the package: an image does not depend on its neighbours bit for
    # bit, whatever the graph. None: the whole batch in one run, as diffusers does.
    images_per_run: int | str | None = "auto"

    @property
    def seeds(self) -> list[int]:
        return [SEED + k for k in range(self.images)]


def find_model() -> tuple[Path, str]:
    """The bundled model, or where it is not there the random one of the tests."""
    try:
        return Path(open_directory("tiny-shapes").path), "tiny-shapes"
    except ModelError:
        return FALLBACK, "tiny_sd (random weights, from tests/golden)"
