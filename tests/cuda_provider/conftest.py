"""ONNX Runtime's CUDA provider, unmodified, on a fake CUDA runtime."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cuda_provider import ProviderOnFake, build_libraries, installed_folder


@pytest.fixture(scope="session")
def ort_folder() -> Path:
    return installed_folder()


@pytest.fixture(scope="session")
def libraries(ort_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_libraries(tmp_path_factory.mktemp("fake-cuda"))


@pytest.fixture(scope="session")
def provider(libraries: Path) -> ProviderOnFake:
    return ProviderOnFake(libraries)


@pytest.fixture
def fake(provider: ProviderOnFake) -> ProviderOnFake:
    provider.reset()
    return provider
