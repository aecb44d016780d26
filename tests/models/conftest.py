"""Model directories that a test may spoil."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.tiny_directory import build_tiny_directory


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("originals")
    build_tiny_directory(base / "inside")
    build_tiny_directory(base / "outside", external_data=True)
    return base


@pytest.fixture
def root(originals: Path, tmp_path: Path) -> Path:
    """A directory of one's own, weights inside of the graphs."""
    return Path(shutil.copytree(originals / "inside", tmp_path / "model"))


@pytest.fixture
def external(originals: Path, tmp_path: Path) -> Path:
    """A directory of one's own, weights in external files."""
    return Path(shutil.copytree(originals / "outside", tmp_path / "external"))
