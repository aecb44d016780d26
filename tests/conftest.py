"""Fixtures that every part of the suite may use."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported, which torch may do too

from tests.support.tiny_directory import build_tiny_directory


@pytest.fixture(scope="session", autouse=True)
def engine_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where AMX is there, pipelines compile by themselves: not into the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEXTOPIA_CACHE_DIR", str(tmp_path_factory.mktemp("engines")))
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete random model directory. Read only: tests that change files build their own."""
    return build_tiny_directory(tmp_path_factory.mktemp("tiny-model"))
