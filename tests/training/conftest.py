"""Makes the training scripts importable: being run as files, they import each other by name."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "training"))
