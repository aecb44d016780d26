"""The modules can be imported, and say what is missing, where torch is not installed."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "diffusers"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Hidden())
import numpy as np
import textopia_fast as tx
from textopia_fast.interop import diffusers, k_diffusion

assert "torch" not in sys.modules and "diffusers" not in sys.modules
sigmas = k_diffusion.get_sigmas_karras(4, 0.1, 10.0, device=None)
x = k_diffusion.sample_euler(lambda x, s: x * 0, np.ones((1, 2), np.float32), sigmas, disable=True)
assert np.all(x == 0)
for call in (
    lambda: diffusers.EulerDiscreteScheduler(),
    lambda: k_diffusion.get_sigmas_karras(4, 0.1, 10.0),
):
    try:
        call()
    except tx.ConfigurationError as error:
        assert "torch" in str(error)
    else:
        raise AssertionError
"""

LAZY = """
import sys
import textopia_fast
assert "textopia_fast.interop" not in sys.modules
import textopia_fast.interop.diffusers, textopia_fast.interop.k_diffusion
assert "torch" not in sys.modules and "diffusers" not in sys.modules
"""


def test_import_without_torch() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60)


def test_import_does_not_import_torch() -> None:
    subprocess.run([sys.executable, "-c", LAZY], check=True, timeout=60)
