"""Reads a picture of tiny-shapes with the automatic reader and fails unless it shows a red circle
on blue."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "training"))

from reader import read

found = read(np.asarray(Image.open(sys.argv[1]).convert("RGB")))
print(found)
